package db

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// bytesOf is what all segments and blobs of a store take.
func bytesOf(s Stats) int64 {
	n := s.BlobBytes
	for _, seg := range s.Segments {
		n += seg.Length
	}
	return n
}

// What Stats says can be given back is what Compact gives back, give or take a
// tenth, and a read-only store says the same. Method: a store with dead records,
// tombstones and blobs, sealed and in the active segment, is compacted.
func TestReclaimable(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 32 << 10, BlobSize: 4 << 10, SpaceTarget: 2})
	defer db.PauseCompaction()()
	churn(t, db, 10)
	for i := range 5 {
		mustPut(t, db, "large", string(bytes.Repeat([]byte{byte(i)}, 10<<10)))
	}
	for i := range 8 {
		mustPut(t, db, "last", string(bytes.Repeat([]byte{byte(i)}, 3<<10)))
	}
	disk.Advance(2 * watermarkIdle) // a follower sees all
	near := func(what string, got, want int64) {
		t.Helper()
		if diff := got - want; max(diff, -diff) > want/10 {
			t.Errorf("%s: %d bytes, want about %d", what, got, want)
		}
	}
	before := db.Stats()
	if dead := before.DeadBlobBytes; dead < 4*10<<10 || dead >= 5*10<<10 {
		t.Errorf("%d bytes of dead blobs, want 4 of 5", dead)
	}
	follower := open(t, "", &Options{FS: disk, ReadOnly: true}).Stats()
	near("seen from beside", follower.Compaction.Reclaimable, before.Compaction.Reclaimable)
	near("dead blobs seen from beside", follower.DeadBlobBytes, before.DeadBlobBytes)
	if s := before.Compaction; s.Target != 2 || s.Rate != defaultCompactionRate || s.Backlog == 0 || before.ReadOnly {
		t.Errorf("%+v", s)
	}
	if s := follower.Compaction; s.Target != 0 || s.Backlog != 0 || !follower.ReadOnly {
		t.Errorf("read-only: %+v", s)
	}

	if err := db.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	after := db.Stats()
	near("given back", bytesOf(before)-bytesOf(after), before.Compaction.Reclaimable)
	if after.Compaction.Segments < 2 || after.Compaction.Segments < after.Compaction.Compactions {
		t.Errorf("%+v", after.Compaction)
	}
	if left := after.Compaction.Reclaimable; left > bytesOf(after)/20 || after.DeadBlobBytes > 0 {
		t.Errorf("%d bytes left, %d of blobs", left, after.DeadBlobBytes)
	}
}

// Tombstones that can't go are counted apart as long as there is something
// older, and not promised: they are less than compaction would bother with.
func TestStuckTombstones(t *testing.T) {
	disk := simdisk.New()
	for i := range 3 {
		db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
		db.compactor.folded.Store(true) // every run leaves a segment
		mustPut(t, db, fmt.Sprint("key", i), string(bytes.Repeat([]byte("x"), 20<<10)))
		if err := db.Delete([]byte("other"), nil); (err == nil) != (i > 0) {
			t.Fatal(err)
		}
		mustPut(t, db, "other", "value")
		db.Close()
	}
	s := open(t, "", &Options{FS: disk, ReadOnly: true}).Stats()
	if stuck := s.Compaction.StuckTombstones; stuck < 2*40 || stuck > 200 {
		t.Errorf("%d bytes of tombstones are stuck, want two of them", stuck)
	}
	if n := s.Compaction.Reclaimable; n != 0 {
		t.Errorf("%d bytes could be given back", n)
	}
}

// A closed store says so.
func TestStatsOfClosedStore(t *testing.T) {
	db := open(t, "", &Options{FS: simdisk.New()})
	if db.Stats().Closed {
		t.Error("an open store says that it is closed")
	}
	db.Close()
	if !db.Stats().Closed {
		t.Error("a closed store does not say so")
	}
}
