//go:build !race

package db

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/segment/vfs"
)

// coldValues are what coldStore has, and whether Near is true of them when they are
// in memory.
var coldValues = map[string]struct {
	size, meta int
	near       bool
}{
	"small":      {100, 0, true},
	"spilling":   {100, 20_000, true}, // metadata in several pages
	"large":      {60 << 10, 10, true},
	"blob":       {64 << 10, 10, false},
	"unverified": {9000, 0, false},
}

// coldStore has values that were verified, one that was not, and a key that was
// deleted. Between any two records there is a page of another one.
func coldStore(t *testing.T) *DB {
	t.Helper()
	db := open(t, t.TempDir(), &Options{BlobSize: 64 << 10})
	mustPut(t, db, "deleted", "value")
	for key, c := range coldValues {
		mustPut(t, db, "before "+key, string(randomBytes(10_000)))
		m := &Metadata{User: []Pair{{Name: "n", Value: strings.Repeat("m", c.meta)}}}
		if err := db.Put([]byte(key), randomBytes(c.size), &PutOptions{Metadata: m}); err != nil {
			t.Fatal(err)
		}
		if key != "unverified" {
			mustView(t, db, key)
		}
	}
	mustPut(t, db, "behind", string(randomBytes(100_000)))
	if err := db.Delete([]byte("deleted"), nil); err != nil {
		t.Fatal(err)
	}
	return db
}

// near reports whether LendResident finds a value without waiting.
func near(db *DB, key string) bool {
	return db.LendResident([]byte(key), vfs.Resident, func(Lent) error { return nil }) != ErrNotResident
}

func mustView(t *testing.T, db *DB, key string) {
	t.Helper()
	if err := db.View([]byte(key), func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// forgetSegments has the kernel forget what is in memory of them, if it can.
func forgetSegments(t *testing.T, db *DB) {
	t.Helper()
	for _, seg := range db.state.Load().segs {
		if seg == nil {
			continue
		}
		f, err := os.Open(seg.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, err := range []error{
			f.Sync(), unix.Madvise(seg.Bytes(), unix.MADV_DONTNEED), unix.Madvise(seg.Bytes(), unix.MADV_RANDOM),
			unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if vfs.Resident(seg.Bytes()[:4096]) {
			skip(t, "this file system keeps all files in memory")
		}
	}
}

// TestLendResident: of a value that is not in memory, and of one that takes more than
// that, nothing is lent, and nothing comes into memory by that. Prefetch brings in all
// that is read then. Method: the thread counts the pages it has to wait for, while the
// kernel reads none ahead.
func TestLendResident(t *testing.T) {
	db := coldStore(t)
	for key, c := range coldValues {
		if got := near(db, key); got != c.near {
			t.Errorf("%s, in memory: %v", key, got)
		}
	}
	for key := range coldValues {
		forgetSegments(t, db)
		if n := majorFaults(t, func() {
			if near(db, key) {
				t.Errorf("%s is lent, and was forgotten", key)
			}
		}); n != 0 {
			t.Errorf("%s: LendResident waits for %d pages", key, n)
		}
		if n := majorFaults(t, func() { mustLend(t, db, key) }); n == 0 {
			t.Errorf("%s: there is nothing to wait for", key)
		}
		forgetSegments(t, db)
		if err := db.Prefetch([]byte(key)); err != nil {
			t.Error(err)
		}
		if n := majorFaults(t, func() { mustLend(t, db, key) }); n != 0 {
			t.Errorf("%s: after Prefetch it waits for %d pages", key, n)
		}
	}
	for _, key := range []string{"", "none", "deleted", strings.Repeat("k", MaxKey+1)} {
		if err := db.Prefetch([]byte(key)); err != nil || !near(db, key) {
			t.Errorf("%.10q is to be waited for: %v", key, err)
		}
	}
}

// TestLendResidentSpill: the head of a record may be in memory, and metadata not.
func TestLendResidentSpill(t *testing.T) {
	db := coldStore(t)
	forgetSegments(t, db)
	var asked [][]byte
	err := db.LendResident([]byte("spilling"), func(mem []byte) bool {
		asked = append(asked, mem)
		return len(asked) == 1 // the head, which is brought in by the look at it
	}, func(Lent) error { t.Error("lent"); return nil })
	if err != ErrNotResident || len(asked) != 2 || len(asked[1]) < 20_000-4096 {
		t.Fatalf("%d questions, %v", len(asked), err)
	}
	if at := uintptr(unsafe.Pointer(&asked[1][0])); at%4096 != 0 {
		t.Errorf("asked twice about the page of the head, and of %#x", at)
	}
	if !vfs.Resident(asked[0]) || vfs.Resident(asked[1]) || near(db, "spilling") {
		t.Error("metadata is lent, and was forgotten")
	}
}

// TestLendResidentVerifies: what is to be verified each time is never lent so, and what
// is never verified is, once it was looked at.
func TestLendResidentVerifies(t *testing.T) {
	for mode, want := range map[VerifyMode]bool{VerifyFirst: true, VerifyAlways: false, VerifyNever: true} {
		db := open(t, t.TempDir(), &Options{Verify: mode})
		mustPut(t, db, "k", "value")
		if near(db, "k") {
			t.Errorf("mode %d: lent before anybody looked at it", mode)
		}
		mustLend(t, db, "k")
		if got := near(db, "k"); got != want {
			t.Errorf("mode %d: lent: %v", mode, got)
		}
	}
}

// mustLend reads a value as an answer does, but for a blob, of which the file is not
// brought in.
func mustLend(t *testing.T, db *DB, key string) {
	t.Helper()
	err := db.Lend([]byte(key), func(v Lent) error {
		if _, err := v.Metadata(); err != nil || key == "blob" {
			return err
		}
		b, err := v.Range(0, v.Size())
		for i := 0; i < len(b); i += 512 {
			lentSum += b[i]
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var lentSum byte

// majorFaults is how many pages fn has to wait for.
func majorFaults(t *testing.T, fn func()) int64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after syscall.Rusage
	if err := syscall.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		t.Fatal(err)
	}
	fn()
	if err := syscall.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		t.Fatal(err)
	}
	return after.Majflt - before.Majflt
}
