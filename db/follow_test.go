package db

import (
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// TestRefreshShows holds Refresh to its words: after it, all acknowledged writes are
// seen but those of the last group, and that one when another was written or
// watermarkIdle has passed.
func TestRefreshShows(t *testing.T) {
	disk := simdisk.New()
	writer := open(t, "", &Options{FS: disk})
	mustPut(t, writer, "a", "1")
	mustPut(t, writer, "b", "1")
	reader := open(t, "", &Options{FS: disk, ReadOnly: true})
	refresh := func() {
		t.Helper()
		if err := reader.Refresh(); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	mustGet(t, reader, "a", "1")
	mustPut(t, writer, "c", "1")
	refresh()
	mustGet(t, reader, "b", "1")
	disk.Advance(watermarkIdle)
	refresh()
	mustGet(t, reader, "c", "1")
}
