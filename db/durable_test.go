package db

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// What became quiet 50 ms ago is proven: damage to the last write is damage, and
// never taken for a torn tail, also when a power cut follows.
func TestWatermarkIsDurable(t *testing.T) {
	for seed := range uint64(40) {
		disk := simdisk.New()
		db := open(t, "", &Options{FS: disk, SegmentSize: 1 << 20}) // 40 of the default size don't fit 32 bits
		mustPut(t, db, "a", "first")
		mustPut(t, db, "b", "last value")
		disk.Advance(time.Second)
		image := disk.Crash(rand.New(rand.NewPCG(seed, 1)))
		name := activeFile(t, image)
		data, _ := image.ReadFile(name)
		data[bytes.Index(data, []byte("last value"))] ^= 1
		image.WriteFile(name, data)
		var damage *CorruptError
		if _, err := Open("", &Options{FS: image}); !errors.As(err, &damage) {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// What Sync has made durable is seen by a follower some time later, without
// another write.
func TestSyncedIsFollowed(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, Sync: SyncNever})
	follower := open(t, "", &Options{FS: disk, ReadOnly: true})
	mustPut(t, db, "a", "1")
	disk.Advance(time.Second)
	mustBeGone(t, follower, "a")
	if err := db.Sync(); err != nil {
		t.Fatal(err)
	}
	disk.Advance(time.Second)
	mustGet(t, follower, "a", "1")
}

// A write that failed does not keep earlier ones from being synced in time.
func TestIntervalGoesOnAfterFailedWrite(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, Sync: SyncInterval})
	mustPut(t, db, "a", "acknowledged")
	disk.Fail(func(op, name string, n int) error {
		if op == simdisk.OpWriteVec {
			return syscall.EIO
		}
		return nil
	})
	if err := db.Put([]byte("b"), nil, nil); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	disk.Advance(time.Second)
	if seg := db.writer.active.Segment(); seg.Synced() != seg.Len() {
		t.Errorf("synced %d of %d bytes", seg.Synced(), seg.Len())
	}
}

// A put that failed half-way and was then deleted does not come back, though
// its record is in the file and the delete found nothing to delete.
func TestFailedPutStaysDeleted(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	mustPut(t, db, "a", "1")
	writes, room := 0, int64(0)
	disk.Fail(func(op, name string, n int) error {
		if op != simdisk.OpWriteVec {
			return nil
		}
		if writes++; writes == 1 {
			return simdisk.Short{N: int(room)}
		}
		return syscall.EIO
	})
	group := []*commit{putCommit(t, db, "k"), putCommit(t, db, "l")}
	room = segment.WatermarkSize + int64(len("k")+len("value")+2) // the first record, padded
	db.commitGroup(group)
	if group[0].err == nil || group[1].err == nil {
		t.Fatal("the write did not fail")
	}
	disk.Fail(nil)
	if err := db.Delete([]byte("k"), nil); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	mustBeGone(t, open(t, "", &Options{FS: disk.Clone()}), "k")
}

func putCommit(t *testing.T, db *DB, key string) *commit {
	c := &commit{ops: []op{newPut([]byte(key), []byte("value"), nil)}}
	if err := db.prepare(c, SyncAlways); err != nil {
		t.Fatal(err)
	}
	return c
}

// A panic while a group is committed fails that group and stops writing. It
// does not leave others waiting for ever.
func TestPanicInLeader(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	mustPut(t, db, "a", "1")
	disk.Fail(func(op, name string, n int) error {
		if op == simdisk.OpDatasync {
			panic("page that can't be read")
		}
		return nil
	})
	func() {
		defer func() { recover() }()
		db.Put([]byte("b"), nil, nil)
	}()
	disk.Fail(nil)
	if err := db.Put([]byte("c"), nil, nil); !errors.Is(err, errAborted) {
		t.Error(err)
	}
	mustGet(t, db, "a", "1")
}

// Segments are folded up to the size of one and no further, whatever size they
// were written with.
func TestFoldIsBounded(t *testing.T) {
	dir := t.TempDir()
	value := bytes.Repeat([]byte("v"), 60<<10)
	db := open(t, dir, &Options{SegmentSize: 64 << 10, Sync: SyncNever})
	for i := range 40 {
		mustPut(t, db, fmt.Sprint(i), string(value))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, &Options{SegmentSize: 1 << 20})
	mustPut(t, db, "one more", "x")
	for _, s := range db.Stats().Segments {
		info, err := os.Stat(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		if s.Length > 1<<20 || info.Size() > 1<<20 {
			t.Errorf("%s has %d bytes", s.Path, s.Length)
		}
	}
	for i := range 40 {
		mustGet(t, db, fmt.Sprint(i), string(value))
	}
	if _, _, err := segment.Create(simdisk.New(), 1, segment.StoreID{}, 0, segment.MaxStart+1); err == nil {
		t.Error("a segment longer than a Ref can reach was created")
	}
}

// A snapshot of a closed store is refused, also when nothing of the store is
// left in memory and no snapshot has sorted its keys yet.
func TestSnapshotAfterClose(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, nil)
	for i := range 100 {
		mustPut(t, db, fmt.Sprint("long common prefix ", i), "v")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		runtime.GC()
	}
	if _, err := db.Snapshot(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Recovery of a tail that holds nothing but a watermark leaves no empty file.
func TestNoEmptySegments(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	mustPut(t, db, "a", "1")
	disk.Advance(time.Second)
	image := disk.Clone()
	open(t, "", &Options{FS: image})
	for _, name := range image.Names() {
		data, _ := image.ReadFile(name)
		if strings.HasSuffix(name, ".seg") && len(data) <= segment.HeaderSize {
			t.Errorf("%s is empty", name)
		}
	}
}
