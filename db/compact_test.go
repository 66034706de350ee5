package db

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

func segmentCount(disk *simdisk.Disk) (n int) {
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, ".seg") {
			n++
		}
	}
	return n
}

// Every run leaves a segment; folding keeps their number logarithmic, loses
// nothing and brings nothing back.
func TestFoldBoundsFiles(t *testing.T) {
	disk, want, most := simdisk.New(), map[string]string{}, 0
	for run := range 500 {
		db := open(t, "", &Options{FS: disk})
		key := fmt.Sprint("key", run%97)
		if _, there := want[key]; there && run%5 == 0 {
			delete(want, key)
			if err := db.Delete([]byte(key), nil); err != nil {
				t.Fatal(err)
			}
		} else {
			want[key] = fmt.Sprint("value", run)
			mustPut(t, db, key, want[key])
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		most = max(most, segmentCount(disk))
	}
	t.Logf("at most %d segments", most)
	if most > 16 {
		t.Errorf("%d segments after 500 runs", most)
	}
	db := open(t, "", &Options{FS: disk})
	for i := range 97 {
		key := fmt.Sprint("key", i)
		if value, there := want[key]; there {
			mustGet(t, db, key, value)
		} else {
			mustBeGone(t, db, key)
		}
	}
	if n := db.Stats().Keys; n != len(want) {
		t.Errorf("%d keys, want %d", n, len(want))
	}
}
