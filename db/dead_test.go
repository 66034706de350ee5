package db

import (
	"fmt"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// TestDeadSegmentsGoAtOnce promises that segments in which nothing is needed go
// without the pace of what is read, however many there are, also when commits have
// set the timer meanwhile. Method: 100 of them at a rate of a byte a second.
func TestDeadSegmentsGoAtOnce(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: minSegmentSize, CompactionRate: 1})
	resume := db.PauseCompaction()
	value := string(make([]byte, 3000))
	for i := range 2 * maxDead {
		mustPut(t, db, fmt.Sprint("k", i%2), value)
	}
	if n := len(db.Stats().Segments); n < 2*maxDead {
		t.Fatalf("only %d segments", n)
	}
	resume()
	disk.OnOp(func(int, string) { db.scheduleCompaction(time.Hour) }) // as a commit does, but later
	disk.Advance(compactEvery)
	disk.Advance(time.Millisecond)
	disk.OnOp(nil)
	if n := len(db.Stats().Segments); n > 8 {
		t.Errorf("%d segments are left, %+v", n, db.Stats().Compaction)
	}
	if read := db.Stats().Compaction.BytesRead; read > 4*minSegmentSize {
		t.Errorf("%d bytes were read", read)
	}
}
