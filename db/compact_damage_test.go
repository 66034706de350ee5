package db

import (
	"bytes"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// bitFlips are flips in a record whose key is not longer than 8 bytes.
var bitFlips = map[string]func(r *segment.Record, mem []byte){
	"key":    func(r *segment.Record, _ []byte) { r.Key[0] ^= 1 },
	"length": func(r *segment.Record, mem []byte) { mem[r.Offset+36] ^= 1 }, // 4 GiB more of value
}

// damagedCopy compacts a segment of two values. The copy of the first, "key", is
// damaged once the disk is about to do op. It returns what came of that.
func damagedCopy(t *testing.T, op string, flip func(r *segment.Record, mem []byte)) (db *DB, disk *simdisk.Disk, unflip func(), err error) {
	disk = newDisk()
	db = open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	db.PauseCompaction()
	mustPut(t, db, "key", "value")
	mustPut(t, db, "other", "value")
	in := db.writer.active.Segment()
	mustSeal(t, db)
	mustPut(t, db, "later", "x")
	db.compactor.mu.Lock()
	defer db.compactor.mu.Unlock()
	c := db.newCompaction([]*segment.Segment{in})
	if done, err := c.copySome(copyStep); !done || err != nil {
		t.Fatal(done, err)
	}
	out := c.outputs[0].Segment()
	r, err := out.Peek(segment.HeaderSize)
	if err != nil || string(r.Key) != "key" {
		t.Fatalf("%q, %v", r.Key, err)
	}
	flipped := false
	disk.Fail(func(o, _ string, _ int) error {
		if o == op && !flipped {
			flipped = true
			flip(&r, out.Bytes())
		}
		return nil
	})
	if op == "" {
		flip(&r, out.Bytes())
	}
	if err = c.commit(); err != nil {
		c.discard()
	}
	disk.Fail(nil)
	return db, disk, func() { flip(&r, out.Bytes()) }, err
}

// A compaction whose copies do not read as what was written comes to nothing.
func TestDamagedCopy(t *testing.T) {
	for name, flip := range bitFlips {
		t.Run(name, func(t *testing.T) {
			db, disk, _, err := damagedCopy(t, "", flip)
			if err == nil {
				t.Error("a damaged copy takes the place of the record")
			}
			mustGet(t, db, "key", "value")
			mustPut(t, db, "key", "new")
			if err := db.Compact(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			mustGet(t, open(t, "", &Options{FS: disk}), "key", "new")
		})
	}
}

// A copy that is damaged after the manifest has named it stops writing. What
// readers have stays, nobody looks for ever for a record that is gone, and if it
// was the memory only the next Open finds all there was. Method: the bit flips
// when the new manifest gets its name.
func TestCopyDamagedLate(t *testing.T) {
	for name, flip := range bitFlips {
		t.Run(name, func(t *testing.T) {
			db, disk, unflip, err := damagedCopy(t, simdisk.OpRename, flip)
			if err == nil {
				t.Error("a damaged copy takes the place of the record")
			}
			mustGet(t, db, "key", "value")
			if err := db.Put([]byte("key"), nil, nil); err == nil {
				t.Error("writing goes on")
			}
			unflip()
			db.Close()
			mustGet(t, open(t, "", &Options{FS: disk}), "key", "value")
		})
	}
}

// The older version of a value that is known to be damaged is kept for repair.
func TestOlderVersionOfSuspect(t *testing.T) {
	disk := newDisk()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	db.PauseCompaction()
	garbage := strings.Repeat("x", 1000)
	var damaged *segment.Segment
	for _, value := range []string{"older", "newest"} {
		mustPut(t, db, "key", value)
		for range 20 {
			mustPut(t, db, "other", garbage)
		}
		damaged = db.writer.active.Segment()
		mustSeal(t, db)
	}
	r, err := damaged.Peek(segment.HeaderSize)
	if err != nil || string(r.Value) != "newest" {
		t.Fatalf("%q, %v", r.Value, err)
	}
	r.Value[0] ^= 1
	for range 3 {
		if err := db.Compact(t.Context(), nil); err == nil {
			break // nothing more is tried
		}
	}
	db.Close()
	name := damaged.ID().FileName()
	b, err := disk.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("newest"))] ^= 1
	disk.WriteFile(name, b)
	if _, err := check.Repair(t.Context(), "", &check.RepairOptions{FS: disk}); err != nil {
		t.Error(err)
	}
	mustGet(t, open(t, "", &Options{FS: disk}), "key", "older")
}
