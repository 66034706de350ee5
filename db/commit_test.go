package db

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// 64 writers that each wait for the disk share its syncs: at most one datasync,
// counted in the file layer, for 16 acknowledged writes.
func TestGroupCommit(t *testing.T) {
	const writers, puts = 64, 40
	dir, err := vfs.OpenDir(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	counting := &countingFS{FS: dir}
	db := open(t, "", &Options{FS: counting})
	mustPut(t, db, "first", "")
	before := counting.datasyncs.Load()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range puts {
				if err := db.Put(fmt.Appendf(nil, "%d/%d", w, i), []byte("value"), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	syncs := counting.datasyncs.Load() - before
	t.Logf("%d acknowledged writes, %d datasyncs", writers*puts, syncs)
	if syncs*16 > writers*puts {
		t.Errorf("%d datasyncs for %d writes", syncs, writers*puts)
	}
	if n := db.Stats().Keys; n != writers*puts+1 {
		t.Errorf("%d keys", n)
	}
}

// No reader sees a part of a batch: all keys of it always have the same value,
// or the reader saw an older batch first.
func TestBatchSeenWhole(t *testing.T) {
	db := open(t, t.TempDir(), &Options{Sync: SyncNever})
	keys := [][]byte{[]byte("a"), []byte("b"), []byte("c"), []byte("d")}
	apply := func(generation int) {
		var b Batch
		for _, key := range keys {
			b.Put(key, fmt.Appendf(nil, "%08d", generation), nil)
		}
		if err := db.Apply(&b, nil); err != nil {
			t.Error(err)
		}
	}
	apply(0)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := ""; ; {
				select {
				case <-done:
					return
				default:
				}
				for _, key := range keys {
					got, err := db.Get(nil, key)
					if err != nil || string(got) < last {
						t.Errorf("%s: %s after %s was seen, %v", key, got, last, err)
						return
					}
					last = string(got)
				}
			}
		})
	}
	for generation := range 3000 {
		apply(generation + 1)
	}
	close(done)
	wg.Wait()
}

// The results of a batch say what was there before, also within the batch, and
// deletes of nothing leave no record.
func TestBatchResults(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	mustPut(t, db, "old", "x")
	records := db.Stats().Records
	var b Batch
	b.Delete([]byte("absent"))
	b.Put([]byte("new"), []byte("1"), nil)
	b.Put([]byte("new"), []byte("2"), nil)
	b.Delete([]byte("new"))
	b.Delete([]byte("new"))
	b.Put([]byte("old"), []byte("y"), nil)
	if err := db.Apply(&b, nil); err != nil {
		t.Fatal(err)
	}
	want := []bool{false, false, true, true, false, true}
	for i, existed := range want {
		if b.Result(i).Existed != existed {
			t.Errorf("operation %d: existed %v", i, !existed)
		}
	}
	if n := db.Stats().Records - records; n != 4 {
		t.Errorf("%d records written", n)
	}
	mustBeGone(t, db, "new")
	mustGet(t, db, "old", "y")
	v, err := db.Value([]byte("old"))
	if err != nil || v.Version() != b.Result(5).Version {
		t.Error(v.Version(), b.Result(5).Version, err)
	}
	v.Close()
	if err := db.Apply(&Batch{}, nil); err != nil {
		t.Error("empty batch:", err)
	}
}

func TestBatchTooLarge(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	var b Batch
	for i := range maxBatchRecords + 1 {
		b.Put(fmt.Appendf(nil, "%d", i), nil, nil)
	}
	if err := db.Apply(&b, nil); !errors.Is(err, ErrBatchTooLarge) {
		t.Error(err)
	}
	b.Reset()
	value := make([]byte, 33<<20)
	b.Put([]byte("a"), value, nil)
	b.Put([]byte("b"), value, nil)
	if err := db.Apply(&b, nil); !errors.Is(err, ErrBatchTooLarge) {
		t.Error(err)
	}
}

// After a failed sync nothing of the group is visible and no write is accepted,
// whatever a second sync would say. Reads go on.
func TestFailedSync(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	mustPut(t, db, "k", "old")
	disk.Fail(func(op, name string, n int) error {
		if op == simdisk.OpDatasync {
			return syscall.EIO
		}
		return nil
	})
	if err := db.Put([]byte("k"), []byte("new"), nil); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	disk.Fail(nil)
	syncs := disk.Count(simdisk.OpDatasync)
	if err := db.Put([]byte("k2"), []byte("x"), nil); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	mustGet(t, db, "k", "old")
	mustBeGone(t, db, "k2")
	db.Close()
	if disk.Count(simdisk.OpDatasync) != syncs {
		t.Error("the failed sync was tried again")
	}
	db = open(t, "", &Options{FS: disk})
	mustBeGone(t, db, "k2")
	mustPut(t, db, "k3", "v")
}

// A write that fails for lack of space has an error of its own, leaves what was
// there readable, and writing goes on when there is room again.
func TestNoSpace(t *testing.T) {
	for _, failing := range []string{simdisk.OpReserve, simdisk.OpWriteVec} {
		t.Run(failing, func(t *testing.T) {
			disk := simdisk.New()
			db := open(t, "", &Options{FS: disk})
			mustPut(t, db, "k", "old")
			disk.Fail(func(op, name string, n int) error {
				if op == failing || op == simdisk.OpCreate {
					return syscall.ENOSPC
				}
				return nil
			})
			for range 3 {
				err := db.Put([]byte("k"), make([]byte, 5<<20), nil)
				if !errors.Is(err, ErrNoSpace) {
					t.Fatal(err)
				}
				mustGet(t, db, "k", "old")
			}
			disk.Fail(nil)
			mustPut(t, db, "k", "new")
			mustGet(t, db, "k", "new")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			mustGet(t, open(t, "", &Options{FS: disk}), "k", "new")
		})
	}
}

// A clean close proves all that was written, in every mode; a put may ask for
// more than its store.
func TestSyncModes(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncInterval, SyncNever} {
		disk := simdisk.New()
		db := open(t, "", &Options{FS: disk, Sync: mode})
		mustPut(t, db, "a", "1")
		before := disk.Count(simdisk.OpDatasync)
		mustPut(t, db, "b", "2")
		if synced := disk.Count(simdisk.OpDatasync) > before; synced != (mode == SyncAlways) {
			t.Errorf("mode %d: synced %v", mode, synced)
		}
		if mode == SyncInterval {
			disk.Advance(db.opts.SyncEvery)
			if disk.Count(simdisk.OpDatasync) == before {
				t.Error("the interval passed without a sync")
			}
		}
		before = disk.Count(simdisk.OpDatasync)
		if err := db.Put([]byte("c"), []byte("3"), &PutOptions{Sync: SyncAlways}); err != nil {
			t.Fatal(err)
		}
		if disk.Count(simdisk.OpDatasync) == before {
			t.Errorf("mode %d: a put that asked for a sync got none", mode)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		mustGet(t, open(t, "", &Options{FS: disk}), "b", "2")
	}
}
