//go:build !race

package db

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/segment/vfs"
)

// coldValues are what coldStore has, and whether they are lent by LendResident when
// they are in memory.
var coldValues = map[string]struct {
	size, meta int
	near       bool
}{
	"small":      {100, 0, true},
	"spilling":   {100, 20_000, true}, // metadata in several pages
	"large":      {60_001, 10, true},
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
	mustPut(t, db, "behind", string(randomBytes(10_000)))
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
	for seg := range db.index.Segments().All() {
		f, err := os.Open(seg.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for tries := 0; tries == 0 || !forgotten(seg.Bytes()[:seg.Len()]); tries++ {
			if tries == 10 {
				skip(t, "this file system keeps all files in memory")
			}
			time.Sleep(time.Duration(tries) * time.Millisecond) // the kernel may be busy with a page
			for _, err := range []error{
				f.Sync(), unix.Madvise(seg.Bytes(), unix.MADV_DONTNEED), unix.Madvise(seg.Bytes(), unix.MADV_RANDOM),
				unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// forgotten reports whether no page is in memory.
func forgotten(mem []byte) bool {
	for page := range slices.Chunk(mem, 4096) {
		if vfs.Resident(page) {
			return false
		}
	}
	return true
}

// TestLendResident: of a value that is not in memory, and of one that takes more than
// that, nothing is lent, and nothing comes into memory by that. Prefetch brings in all
// that is read then, and no more. Method: the kernel is asked what is in memory, and
// reads nothing ahead.
func TestLendResident(t *testing.T) {
	db := coldStore(t)
	places := make(map[string]place)
	for key, c := range coldValues {
		if got := near(db, key); got != c.near {
			t.Errorf("%s, in memory: %v", key, got)
		}
		places[key] = placeOf(t, db, key)
	}
	for key, p := range places {
		forgetSegments(t, db)
		if near(db, key) || vfs.Resident(p.head) {
			t.Errorf("%s was forgotten, and is lent or brought in", key)
		}
		for _, most := range []int64{1, 1 << 20} {
			if err := db.Prefetch([]byte(key), most); err != nil {
				t.Error(err)
			}
			if n := majorFaults(t, func() { mustRead(t, db, key) }); n != 0 {
				t.Errorf("%s: after Prefetch of %d bytes at most a write waits for %d pages", key, most, n)
			}
			if whole := most >= p.value || p.value < 4096; !vfs.Resident(p.front) || vfs.Resident(p.record) != whole {
				t.Errorf("%s: Prefetch of %d bytes at most: front %v, record %v", key, most, vfs.Resident(p.front), !whole)
			}
		}
	}
	for _, key := range []string{"", "none", "deleted", strings.Repeat("k", MaxKey+1)} {
		if err := db.Prefetch([]byte(key), 0); err != nil || !near(db, key) {
			t.Errorf("%.10q is to be waited for: %v", key, err)
		}
	}
}

// place is where the record of a key lies.
type place struct {
	head, front, record []byte
	value               int64 // bytes in the record
}

func placeOf(t *testing.T, db *DB, key string) place {
	t.Helper()
	hit := db.index.Glance([]byte(key))
	r, err := hit.Segment.Peek(hit.Offset)
	if err != nil || string(r.Key) != key {
		t.Fatalf("%q, %v", r.Key, err)
	}
	mem := hit.Segment.Bytes()
	return place{
		hit.Segment.Head(r.Offset, len(key)), mem[r.Offset:r.ValueOffset()], mem[r.Offset:r.End], int64(len(r.Value)),
	}
}

// TestLendResidentOpensNothing: of what takes more than its record nothing is looked
// at but the head, though it counts as verified: a blob is not opened, nor a table
// behind a value read.
func TestLendResidentOpensNothing(t *testing.T) {
	db := open(t, t.TempDir(), &Options{BlobSize: 4 << 20, Verify: VerifyNever})
	mustPut(t, db, "blob", string(randomBytes(4<<20)))
	mustPut(t, db, "chunked", string(randomBytes(3<<20)))
	mustPut(t, db, "behind", string(randomBytes(10_000))) // or the table is where a watermark is written
	runtime.GC()                                          // the writer of the blob had it open
	for _, key := range []string{"blob", "chunked"} {
		hit := db.index.Glance([]byte(key))
		hit.MarkVerified(0)
		p := placeOf(t, db, key)
		forgetSegments(t, db)
		asked := 0
		err := db.LendResident([]byte(key), func(mem []byte) bool {
			asked++
			return true
		}, func(Lent) error { t.Errorf("%s: lent", key); return nil })
		if err != ErrNotResident || asked != 1 {
			t.Errorf("%s: %v, asked %d times", key, err, asked)
		}
		for _, blob := range hit.Segment.Blobs() {
			if blob.InUse() {
				t.Error("the blob was opened")
			}
		}
		if end := p.record[len(p.record)-1:]; key == "chunked" && vfs.Resident(end) {
			t.Error("the table was looked at")
		}
	}
}

// TestLendResidentDeleted: whoever asks for a key that is gone need not wait either, the
// second time, where tombstones stay in the index: in a follower.
func TestLendResidentDeleted(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, nil)
	mustPut(t, w, "k", "value")
	if err := errors.Join(w.Delete([]byte("k"), nil), w.Close()); err != nil {
		t.Fatal(err)
	}
	db := open(t, dir, &Options{ReadOnly: true})
	if n := db.index.TableBytes(); n == 0 {
		t.Fatal("the tombstone is not in the index")
	}
	for _, want := range []error{ErrNotFound, ErrNotFound} {
		err := db.Lend([]byte("k"), func(Lent) error { return nil })
		if !errors.Is(err, want) {
			t.Error(err)
		}
	}
	if err := db.LendResident([]byte("k"), vfs.Resident, nil); !errors.Is(err, ErrNotFound) {
		t.Error(err)
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

// mustRead reads what a write does of the value it replaces.
func mustRead(t *testing.T, db *DB, key string) {
	t.Helper()
	hit := db.index.Glance([]byte(key))
	if _, err := hit.Segment.Read(hit.Offset); err != nil {
		t.Fatal(err)
	}
}

// majorFaults is how many pages fn has to wait for, or fewer: the kernel does not count
// one during which a signal comes.
func majorFaults(t *testing.T, fn func()) int64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after syscall.Rusage
	err := syscall.Getrusage(unix.RUSAGE_THREAD, &before)
	fn()
	if err := errors.Join(err, syscall.Getrusage(unix.RUSAGE_THREAD, &after)); err != nil {
		t.Fatal(err)
	}
	return int64(after.Majflt - before.Majflt)
}

// mustLend reads a value as an answer does.
func mustLend(t *testing.T, db *DB, key string) {
	t.Helper()
	if err := db.Lend([]byte(key), func(v Lent) error { _, err := v.Range(0, v.Size()); return err }); err != nil {
		t.Fatal(err)
	}
}
