package db

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/crowfly/crowfly/segment"
)

// lendPlain does what an answer to a client does.
func lendPlain(v Lent) error {
	if m, err := v.Metadata(); err != nil || m.ContentType != "text/plain" || m.ModTime.IsZero() {
		return fmt.Errorf("metadata %+v, %w", m, err)
	}
	_, err := v.Range(0, v.Size())
	return err
}

var lentTime = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

// Lend hands out slices and strings of the mapping, not copies, and allocates
// nothing.
func TestLendIsZeroCopy(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	m := &Metadata{ModTime: lentTime, ContentType: "text/plain"}
	if err := db.Put([]byte("key"), bytes.Repeat([]byte("v"), 1000), &PutOptions{Metadata: m}); err != nil {
		t.Fatal(err)
	}
	var mem []byte
	for seg := range db.index.Segments().All() {
		mem = seg.Bytes()
	}
	inMapping := func(what string, p unsafe.Pointer) {
		if from := unsafe.Pointer(unsafe.SliceData(mem)); uintptr(p) < uintptr(from) || uintptr(p) >= uintptr(from)+uintptr(len(mem)) {
			t.Errorf("%s is a copy", what)
		}
	}
	err := db.Lend([]byte("key"), func(v Lent) error {
		b, err := v.Range(1, 100)
		inMapping("a range", unsafe.Pointer(unsafe.SliceData(b)))
		if cap(b) != len(b) {
			t.Error("append to the value would write to the mapping")
		}
		m, metaErr := v.Metadata()
		inMapping("a content type", unsafe.Pointer(unsafe.StringData(m.ContentType)))
		return errors.Join(err, metaErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("key")
	if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, db.Lend(key, lendPlain)) }); n != 0 || err != nil {
		t.Errorf("Lend allocates %v times, %v", n, err)
	}
}

// Lend tells the same of a value as Value does, wherever it lies, and its error
// is that of the function.
func TestLendIsLikeValue(t *testing.T) {
	const blobSize = 2 << 20
	db := open(t, "", &Options{FS: newDisk(), BlobSize: blobSize})
	for _, size := range []int{0, 1, 1000, 100_000, segment.ChunkedAbove + 5, blobSize} {
		key := []byte(fmt.Sprint(size))
		m := &Metadata{ModTime: lentTime, ContentType: "a/b", User: []Pair{{Name: "n", Value: "v"}}}
		if err := db.Put(key, randomBytes(size), &PutOptions{Metadata: m}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // before and after it has been verified
			failed := errors.New("of the function")
			err := db.Lend(key, func(v Lent) error { compareLent(t, &v, mustValue(t, db, string(key))); return failed })
			if err != failed {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}

// compareLent closes the Value.
func compareLent(t *testing.T, v *Lent, same *Value) {
	t.Helper()
	defer same.Close()
	m, err := v.Metadata()
	want, _ := same.Metadata()
	if err != nil || !reflect.DeepEqual(m, want) || v.Version() != same.Version() || v.Size() != same.Size() ||
		v.Extent() != same.Extents()[0] {
		t.Errorf("%d bytes: %+v, %v, %v, %+v", same.Size(), m, err, v.Version(), v.Extent())
	}
	for _, r := range [][2]int64{{0, v.Size()}, {v.Size() / 3, v.Size() / 2}, {v.Size(), 0}} {
		got, err := v.Range(r[0], r[1])
		want, wantErr := same.Range(r[0], r[1])
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, range %v: %v, %v", same.Size(), r, err, wantErr)
		}
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, v.Size() + 1}, {v.Size() + 1, 0}, {1 << 62, 1 << 62}} {
		if _, err := v.Range(r[0], r[1]); err == nil {
			t.Errorf("range %v accepted", r)
		}
	}
}

// A value stays for the call, though its key is overwritten and its segment
// compacted away meanwhile, and no longer: nothing is left that would keep the
// segment. What Keep returns stays, and is listed.
func TestLendHoldsForTheCall(t *testing.T) {
	for _, keep := range []bool{false, true} {
		db := open(t, "", &Options{FS: newDisk()})
		mustPut(t, db, "k", "first value")
		var kept *Value
		var seg weak.Pointer[segment.Segment]
		err := db.Lend([]byte("k"), func(v Lent) error {
			seg = weak.Make(v.hit.Segment)
			b, err := v.Range(0, v.Size())
			if err != nil {
				return err
			}
			if keep {
				kept = v.Keep()
			}
			mustPut(t, db, "k", "second value")
			compactAll(t, db)
			runtime.GC()
			runtime.GC()
			if string(b) != "first value" {
				t.Errorf("the value became %q", b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		if alive := seg.Value() != nil; alive != keep {
			t.Errorf("keep %v: the segment is there: %v", keep, alive)
		}
		if n := db.Stats().Values; n != 0 != keep {
			t.Errorf("keep %v: %d open values", keep, n)
		}
		if !keep {
			continue
		}
		if b, err := kept.Bytes(); err != nil || string(b) != "first value" {
			t.Errorf("kept %q, %v", b, err)
		}
		kept.Close()
	}
}

// Damage is found on the first use of the bytes that have it, and again on the
// next, and not by who does not use them.
func TestLendVerifies(t *testing.T) {
	for _, size := range []int{100, 2 << 20} {
		db := openDamaged(t, size)
		whole := func(v Lent) error { _, err := v.Range(0, v.Size()); return err }
		last := func(v Lent) error { _, err := v.Range(v.Size()-1, 1); return err }
		version := func(v Lent) error { _ = v.Version(); return nil }
		for range 2 {
			for _, c := range []struct {
				use    func(Lent) error
				damage bool
			}{{version, false}, {whole, true}, {last, size == 100}} {
				err := db.Lend([]byte("bad"), c.use)
				var damage *CorruptError
				if errors.As(err, &damage) != c.damage || !c.damage && err != nil {
					t.Errorf("%d bytes: %v, want damage %v", size, err, c.damage)
				}
			}
		}
		if err := db.Lend([]byte("good"), whole); err != nil {
			t.Error(err)
		}
	}
}

// What was verified once is not verified again, unless the store is to do so:
// who damages a value afterwards is noticed only then.
func TestLendVerifiesOnce(t *testing.T) {
	for verify, noticed := range map[VerifyMode]bool{VerifyFirst: false, VerifyAlways: true} {
		disk := newDisk()
		db := open(t, "", &Options{FS: disk, Verify: verify})
		mustPut(t, db, "k", "value")
		whole := func(v Lent) error { _, err := v.Range(0, v.Size()); return err }
		for _, verified := range []bool{false, !noticed} {
			err := db.Lend([]byte("k"), func(v Lent) error {
				if v.Verified() != verified {
					t.Errorf("verify %v: verified is %v", verify, v.Verified())
				}
				return whole(v)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		err := db.Lend([]byte("k"), func(v Lent) error {
			v.record.Sum++
			v.payload = v.hit.Segment.Payload(&v.record)
			return whole(v)
		})
		if (err != nil) != noticed {
			t.Errorf("verify %v: %v", verify, err)
		}
	}
}
