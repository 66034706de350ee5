package db

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// fill makes a store on a simulated disk and leaves it open.
func fill(t *testing.T, disk *simdisk.Disk, n int) *DB {
	db := open(t, "", &Options{FS: disk})
	for i := range n {
		mustPut(t, db, fmt.Sprint("key", i), fmt.Sprint("value", i))
	}
	return db
}

func activeFile(t *testing.T, disk *simdisk.Disk) string {
	t.Helper()
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, ".seg") {
			return name
		}
	}
	t.Fatal("no segment")
	return ""
}

// A tail that was not acknowledged is dropped, damage to what was is refused
// with file and offset and nothing changed, and a watermark makes the last
// write count as the latter.
func TestTornTailAndDamage(t *testing.T) {
	for _, test := range []struct {
		name      string
		watermark bool
		damaged   int // number of the key whose record is damaged
		refused   bool
		survivors int
	}{
		{"torn tail", false, 9, false, 9},
		{"last record below a watermark", true, 9, true, 0},
		{"acknowledged record", false, 4, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := simdisk.New()
			fill(t, disk, 10)
			if test.watermark {
				disk.Advance(time.Second)
			}
			image := disk.Clone()
			name := activeFile(t, image)
			data, _ := image.ReadFile(name)
			at := strings.Index(string(data), fmt.Sprint("value", test.damaged))
			data[at] ^= 1
			image.WriteFile(name, data)
			before := listing(image)
			db, err := Open("", &Options{FS: image})
			if test.refused {
				var damage *CorruptError
				if !errors.As(err, &damage) || !strings.Contains(damage.Path, name) || damage.Offset < segment.HeaderSize {
					t.Errorf("got %v", err)
				}
				if listing(image) != before {
					t.Error("a refused open changed the directory")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if n := db.Stats().Keys; n != test.survivors {
				t.Errorf("%d keys, want %d", n, test.survivors)
			}
		})
	}
}

// listing is everything on a disk, to be compared.
func listing(disk *simdisk.Disk) string {
	var b strings.Builder
	for _, name := range disk.Names() {
		data, _ := disk.ReadFile(name)
		fmt.Fprintf(&b, "%s %q\n", name, data)
	}
	return b.String()
}

// Directories that are not what a store left behind are refused as they are.
func TestRefusedDirectories(t *testing.T) {
	for name, spoil := range map[string]func(*simdisk.Disk){
		"no manifest": func(d *simdisk.Disk) {
			for _, n := range d.Names() {
				if strings.HasPrefix(n, "MANIFEST") {
					d.Remove(n)
				}
			}
		},
		"segment missing": func(d *simdisk.Disk) { d.Remove(segment.ID(1).FileName()) },
		"segment cut": func(d *simdisk.Disk) {
			data, _ := d.ReadFile(segment.ID(1).FileName())
			d.WriteFile(segment.ID(1).FileName(), data[:len(data)-9])
		},
		"manifest damaged": func(d *simdisk.Disk) {
			for _, n := range d.Names() {
				if strings.HasPrefix(n, "MANIFEST") {
					data, _ := d.ReadFile(n)
					data[70] ^= 1
					data[len(data)/2+70] ^= 1
					d.WriteFile(n, data)
				}
			}
		},
		"file of another store": func(d *simdisk.Disk) {
			h := segment.AppendHeader(nil, segment.Header{Magic: segment.MagicSegment, Store: segment.StoreID{1}, File: 99})
			d.WriteFile(segment.ID(99).FileName(), h)
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := simdisk.New()
			fill(t, disk, 3).Close()
			spoil(disk)
			before := listing(disk)
			db, err := Open("", &Options{FS: disk})
			var damage *CorruptError
			if !errors.As(err, &damage) || damage.Path == "" {
				t.Errorf("got %v", err)
			}
			if err == nil {
				db.Close()
			}
			if listing(disk) != before {
				t.Error("a refused open changed the directory")
			}
		})
	}
}

// A manifest that vanished is noticed by the records of a segment that only it
// can have named, and if that can't be read it is not taken for a leftover.
func TestLostManifest(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	for i := range 30 {
		mustPut(t, db, fmt.Sprint("key", i), strings.Repeat("v", 200))
	}
	image := disk.Clone()
	for _, name := range image.Names() {
		if gen, ok := segment.ParseManifestName(name); ok && gen == db.manifests.Current().Generation {
			image.Remove(name)
		}
	}
	before := listing(image)
	for _, op := range []string{simdisk.OpOpen, simdisk.OpReadAt} {
		image.Fail(func(got, name string, n int) error {
			if name == db.writer.active.Segment().ID().FileName() && got == op {
				return syscall.EMFILE
			}
			return nil
		})
		_, err := Open("", &Options{FS: image})
		if !errors.Is(err, syscall.EMFILE) || listing(image) != before {
			t.Errorf("%s fails: %v; unchanged %v", op, err, listing(image) == before)
		}
	}
	image.Fail(nil)
	var damage *CorruptError
	if _, err := Open("", &Options{FS: image}); !errors.As(err, &damage) {
		t.Error(err)
	}
}

// One damaged image of the manifest is healed by the other.
func TestManifestHeals(t *testing.T) {
	disk := simdisk.New()
	fill(t, disk, 3).Close()
	names := disk.Names()
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST") {
			data, _ := disk.ReadFile(name)
			clear(data[:512])
			disk.WriteFile(name, data)
		}
	}
	mustGet(t, open(t, "", &Options{FS: disk}), "key2", "value2")
}

// Opening and closing a store that nobody writes to writes nothing.
func TestUnusedStoreIsLeftAlone(t *testing.T) {
	disk := simdisk.New()
	fill(t, disk, 3).Close()
	before, ops := listing(disk), writes(disk)
	for range 3 {
		db := open(t, "", &Options{FS: disk})
		mustGet(t, db, "key1", "value1")
		if err := db.Delete([]byte("absent"), nil); err == nil {
			t.Error("deleted an absent key")
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		ro := open(t, "", &Options{FS: disk, ReadOnly: true})
		mustGet(t, ro, "key1", "value1")
		ro.Close()
	}
	if listing(disk) != before || writes(disk) != ops {
		t.Errorf("%d operations on the disk", writes(disk)-ops)
	}
}

// writes counts what changed a disk. Syncing a directory that is as it was
// does not.
func writes(disk *simdisk.Disk) int { return disk.Ops() - disk.Count(simdisk.OpSyncDir) }

// A second writer is refused, in this process too.
func TestLocked(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, nil)
	if _, err := Open(dir, nil); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	db.Close()
	open(t, dir, nil)
}
