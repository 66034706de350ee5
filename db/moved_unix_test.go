//go:build unix

package db

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// filesIn returns the sums of all files below a directory.
func filesIn(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	sums := make(map[string][32]byte)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sums[path] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func closeNow(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMovedDirectory promises that an open store stays the directory that it
// opened. Method: the directory is moved and a whole store put in its place.
// Then the first one does all that makes, changes and removes files. The second
// is as it was, byte for byte, and the first has every write.
func TestMovedDirectory(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	options := &Options{SegmentSize: 64 << 10, BlobSize: 16 << 10}
	const mine, other = 40, 40
	second := open(t, at("B"), options)
	for i := range other {
		mustPut(t, second, fmt.Sprintf("b%02d", i), "of B")
	}
	closeNow(t, second)
	first := open(t, at("A"), options)
	for i := range mine {
		mustPut(t, first, fmt.Sprintf("a%02d", i), "of A")
	}
	follower := open(t, at("A"), &Options{ReadOnly: true})

	if err := errors.Join(os.Rename(at("A"), at("old")), os.Rename(at("B"), at("A"))); err != nil {
		t.Fatal(err)
	}
	before := filesIn(t, at("A"))
	large := make([]byte, 4<<10)
	for i := range 100 { // some ten segments, most of them dead
		mustPut(t, first, fmt.Sprintf("a%02d", i%mine), string(large))
	}
	mustPut(t, first, "blob", string(make([]byte, 32<<10)))
	if err := first.Delete([]byte("a00"), nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := first.fs.MakeTrash(); err != nil {
		t.Error(err)
	}
	mustPut(t, first, "last", "of A")
	if err := first.Health(); err != nil {
		t.Error(err)
	}
	if err := follower.Refresh(); err != nil {
		t.Error(err)
	}
	mustGet(t, follower, "a01", string(large))
	closeNow(t, follower)
	closeNow(t, first)
	if after := filesIn(t, at("A")); !reflect.DeepEqual(before, after) {
		t.Errorf("the other store has changed: %d files, %d before", len(after), len(before))
	}

	first = open(t, at("old"), options)
	mustGet(t, first, "last", "of A")
	mustGet(t, first, "a01", string(large))
	mustBeGone(t, first, "a00")
	closeNow(t, first)
	second = open(t, at("A"), options)
	for i := range other {
		mustGet(t, second, fmt.Sprintf("b%02d", i), "of B")
	}
	closeNow(t, second)
}

// TestRemovedDirectory promises that writes stop when the directory is removed,
// that reads go on, and that nothing appears under the old path.
func TestRemovedDirectory(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncNever} {
		dir := filepath.Join(t.TempDir(), "store")
		db := open(t, dir, &Options{Sync: mode})
		mustPut(t, db, "k", "v")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := db.Health(); !errors.Is(err, ErrRemoved) {
			t.Errorf("Health: %v", err)
		}
		var err error
		for deadline := time.Now().Add(time.Minute); err == nil && time.Now().Before(deadline); {
			err = db.Put([]byte("k"), []byte("w"), nil)
			if mode == SyncAlways {
				break // at once; else soon
			}
		}
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("mode %v: Put: %v", mode, err)
		}
		if err := db.Put([]byte("large"), make([]byte, defaultBlobSize), nil); !errors.Is(err, ErrRemoved) {
			t.Errorf("Put of a large value: %v", err)
		}
		if err := db.View([]byte("k"), func([]byte) error { return nil }); err != nil {
			t.Errorf("reads do not go on: %v", err)
		}
		db.Close()
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("something is under the old path: %v", err)
		}
	}
}

// TestHealthOfLastWrite promises that a write that failed shows in Health until
// one succeeds, or for a minute, but not if only room was wanting or the caller
// was wrong.
func TestHealthOfLastWrite(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10, BlobSize: 32 << 10})
	mustPut(t, db, "k", "v")
	fail := func(cause error, size int) {
		t.Helper()
		disk.Fail(func(op, _ string, _ int) error {
			if op == simdisk.OpCreate {
				return cause
			}
			return nil
		})
		defer disk.Fail(nil)
		for range 8 { // beyond the segment
			if err := db.Put([]byte("k"), make([]byte, size), nil); err != nil {
				return
			}
		}
		t.Error("no write failed")
	}
	wantHealth := func(size int, want error) {
		t.Helper()
		if err := db.Health(); !errors.Is(err, want) {
			t.Errorf("size %d: Health: %v, want %v", size, err, want)
		}
	}
	for _, size := range []int{20 << 10, 40 << 10} {
		fail(syscall.EMFILE, size)
		wantHealth(size, syscall.EMFILE)
		db.Put(nil, nil, nil) // says nothing of the store
		wantHealth(size, syscall.EMFILE)
		mustPut(t, db, "k", "v")
		wantHealth(size, nil)
		fail(syscall.EMFILE, size)
		disk.Advance(failureLasts)
		wantHealth(size, nil)
		fail(syscall.ENOSPC, size)
		wantHealth(size, nil)
		db.PutReader(t.Context(), []byte("k"), failingReader{}, -1, nil)
		wantHealth(size, nil)
	}
	closeNow(t, db)
}

// failingReader is a source that fails as a file would.
type failingReader struct{}

func (failingReader) Read([]byte) (int, error) {
	return 0, &os.PathError{Op: "read", Path: "source", Err: syscall.EIO}
}
