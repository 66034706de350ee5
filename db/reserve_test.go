package db

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// fullDisk makes a disk take no new file and set no more blocks aside.
func fullDisk(disk *simdisk.Disk) {
	disk.Fail(func(op, _ string, _ int) error {
		if op == simdisk.OpReserve || op == simdisk.OpCreate {
			return syscall.ENOSPC
		}
		return nil
	})
}

// fillHalf puts values until the next segment is ready.
func fillHalf(t *testing.T, db *DB) (keys []string) {
	for db.writer.spare == nil {
		if len(keys) == 1000 {
			t.Fatal("the next segment is never made")
		}
		key := fmt.Sprint("key", len(keys))
		mustPut(t, db, key, strings.Repeat("v", 100))
		keys = append(keys, key)
	}
	return keys
}

// On a full disk puts fail and deletes go on: as far as the reserve of the
// active segment lets them, then to the spare segment, with the manifest that
// was made ready for it. The store opens again on the full disk.
func TestDeletesOnFullDisk(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	keys := fillHalf(t, db)
	active := db.writer.active
	fullDisk(disk)
	for err := error(nil); !errors.Is(err, ErrNoSpace); {
		key := fmt.Sprint("key", len(keys))
		if err = db.Put([]byte(key), make([]byte, 1000), nil); err == nil {
			keys = append(keys, key)
		}
		if len(keys) > 1000 {
			t.Fatal("puts go on")
		}
	}
	for _, key := range keys {
		if err := db.Delete([]byte(key), nil); err != nil {
			t.Fatalf("delete %s of %d: %v", key, len(keys), err)
		}
	}
	if db.writer.active == active {
		t.Error("the deletes did not need the spare segment")
	}
	killed := open(t, "", &Options{FS: disk.Clone()})
	if n := killed.Stats().Keys; n != 0 {
		t.Errorf("%d keys after all were deleted", n)
	}
	disk.Fail(nil)
	mustPut(t, db, "more", "value")
}

// A delete that is committed together with puts is not refused with them.
func TestDeleteBesidePutOnFullDisk(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	keys := fillHalf(t, db)
	fullDisk(disk)
	put := &commit{ops: []op{newPut([]byte("more"), make([]byte, 3800), nil)}}
	same := &commit{ops: []op{newPut([]byte(keys[0]), make([]byte, 3800), nil)}}
	remove := &commit{ops: []op{newDelete([]byte(keys[0]))}}
	absent := &commit{ops: []op{newDelete([]byte("more"))}}
	group := []*commit{put, same, remove, absent}
	for _, c := range group {
		if err := db.prepare(c, SyncDefault); err != nil {
			t.Fatal(err)
		}
	}
	db.commitGroup(group)
	if !errors.Is(put.err, ErrNoSpace) || !errors.Is(same.err, ErrNoSpace) {
		t.Errorf("puts: %v, %v", put.err, same.err)
	}
	if remove.err != nil || !remove.ops[0].result.Existed {
		t.Errorf("delete: %v, %+v", remove.err, remove.ops[0].result)
	}
	if absent.err != nil || absent.ops[0].result.Existed {
		t.Errorf("delete of a key whose put failed: %v, %+v", absent.err, absent.ops[0].result)
	}
	mustBeGone(t, db, keys[0])
	mustBeGone(t, db, "more")
}

// What is made ahead does not outlive a clean stop, and nothing of it shows.
func TestSpareGoes(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	fillHalf(t, db)
	if n := len(db.Stats().Segments); n != 1 {
		t.Errorf("%d segments in Stats, want the active one", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments := 0
	for _, name := range disk.Names() {
		if strings.HasPrefix(name, "tmp-") {
			t.Errorf("%s stays behind", name)
		}
		if strings.HasSuffix(name, ".seg") {
			segments++
		}
	}
	if segments != 1 {
		t.Errorf("%d segments stay behind", segments)
	}
}

// Writers that run into a full disk together all get their answer.
func TestFullDiskConcurrently(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 16 << 10})
	keys := fillHalf(t, db)
	fullDisk(disk)
	var wg sync.WaitGroup
	for i, key := range keys {
		wg.Go(func() {
			if err := db.Delete([]byte(key), nil); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		wg.Go(func() {
			err := db.Put(fmt.Append(nil, "more", i), make([]byte, 15<<10), nil)
			if !errors.Is(err, ErrNoSpace) {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	if n := db.Stats().Keys; n != 0 {
		t.Errorf("%d keys", n)
	}
}

// A conditional write is told that its condition does not hold only if that is
// so: not because of puts in the same group that came to nothing.
func TestConditionsOnFullDisk(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	keys := fillHalf(t, db)
	fullDisk(disk)
	large := func(key string) *commit {
		return &commit{ops: []op{newPut([]byte(key), make([]byte, 3800), nil)}}
	}
	first, second := large("more"), large("more")
	second.conditions = []condition{{key: []byte("more")}}
	overwrite, remove := large(keys[0]), &commit{ops: []op{newDelete([]byte(keys[0]))}}
	remove.conditions = []condition{{[]byte(keys[0]), db.version([]byte(keys[0]), nil)}}
	there := &commit{ops: []op{newDelete([]byte(keys[1]))}, conditions: []condition{{key: []byte(keys[1])}}}
	group := []*commit{first, second, overwrite, remove, there}
	for _, c := range group {
		if err := db.prepare(c, SyncDefault); err != nil {
			t.Fatal(err)
		}
	}
	db.commitGroup(group)
	for _, c := range []*commit{first, second, overwrite} {
		if !errors.Is(c.err, ErrNoSpace) {
			t.Errorf("put: %v", c.err)
		}
	}
	if remove.err != nil {
		t.Errorf("delete of the version that is there: %v", remove.err)
	}
	if !errors.Is(there.err, ErrPrecondition) {
		t.Errorf("delete that requires the key to be absent: %v", there.err)
	}
}

// Refused puts leave no files behind.
func TestRefusedPutsMakeOneSpare(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	mustPut(t, db, "key", "value")
	active := db.writer.active.Segment().ID().FileName()
	disk.Fail(func(op, name string, _ int) error {
		if op == simdisk.OpReserve && name != active {
			return syscall.ENOSPC
		}
		return nil
	})
	created := 0
	for i := range 100 {
		before := disk.Count(simdisk.OpCreate)
		if err := db.Put(fmt.Append(nil, i), make([]byte, 3000), nil); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("put: %v", err)
		}
		created += disk.Count(simdisk.OpCreate) - before
	}
	if created > 2 {
		t.Errorf("%d files were made by 100 refused puts", created)
	}
}

// Refused puts take nothing of the reserve, however often they are tried: there
// is nothing new for a watermark to prove.
func TestRefusedPutsLeaveReserve(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	mustPut(t, db, "key", "value")
	disk.Advance(time.Second)
	fullDisk(disk)
	before := db.writer.active.Segment().Len()
	for range 20 {
		if err := db.Put([]byte("more"), make([]byte, 40<<10), nil); !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		disk.Advance(watermarkIdle)
	}
	if after := db.writer.active.Segment().Len(); after != before {
		t.Errorf("the segment grew from %d to %d bytes", before, after)
	}
}
