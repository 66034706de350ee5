package db

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"unsafe"

	"github.com/crowfly/crowfly/segment"
)

// View hands out a slice of the mapping, not a copy, and allocates nothing.
func TestViewIsZeroCopy(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	key := []byte("key")
	mustPut(t, db, "key", string(bytes.Repeat([]byte("v"), 1000)))
	var mem []byte
	for seg := range db.index.Segments().All() {
		mem = seg.Bytes()
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	err := db.View(key, func(value []byte) error {
		at := uintptr(unsafe.Pointer(unsafe.SliceData(value)))
		if at < from || at+uintptr(len(value)) > from+uintptr(len(mem)) {
			t.Errorf("value at %x, mapping %x+%x", at, from, len(mem))
		}
		if cap(value) != len(value) {
			t.Error("append to the value would write to the mapping")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { db.View(key, func([]byte) error { return nil }) }); n != 0 {
		t.Errorf("View allocates %v times", n)
	}
	buf := make([]byte, 0, 1000)
	if n := testing.AllocsPerRun(100, func() { db.Get(buf, key) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

// Keys out of bounds are refused by every call, with the key named.
func TestKeySize(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	for _, key := range [][]byte{nil, {}, make([]byte, MaxKey+1)} {
		var b Batch
		b.Put([]byte("good"), nil, nil)
		b.Put(key, nil, nil)
		_, getErr := db.Get(nil, key)
		_, valueErr := db.Value(key)
		for name, err := range map[string]error{
			"Put": db.Put(key, nil, nil), "Delete": db.Delete(key, nil), "Apply": db.Apply(&b, nil),
			"Get": getErr, "View": db.View(key, nil), "Lend": db.Lend(key, nil), "Value": valueErr,
		} {
			if !errors.Is(err, ErrKeySize) {
				t.Errorf("%s of a key of %d bytes: %v", name, len(key), err)
			}
		}
	}
	mustBeGone(t, db, "good")
	longest := string(make([]byte, MaxKey))
	mustPut(t, db, longest, "v")
	mustGet(t, db, longest, "v")
	var b Batch
	b.Put([]byte("k"), make([]byte, MaxBatchValue+1), nil)
	if err := db.Apply(&b, nil); !errors.Is(err, ErrValueTooLarge) {
		t.Error(err)
	}
}

// A value damaged on disk is an error that names file and offset, on each kind
// of read, and other values are not affected.
func TestDamagedValue(t *testing.T) {
	for _, size := range []int{100, 2 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			db := openDamaged(t, size)
			_, getErr := db.Get(nil, []byte("bad"))
			v, err := db.Value([]byte("bad"))
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			_, bytesErr := v.Bytes()
			for name, err := range map[string]error{
				"Get": getErr, "Bytes": bytesErr, "View": db.View([]byte("bad"), func([]byte) error { return nil }),
			} {
				var damage *CorruptError
				if !errors.As(err, &damage) || damage.Offset < segment.HeaderSize || damage.Path == "" {
					t.Errorf("%s: %v", name, err)
				}
			}
			mustGet(t, db, "good", "value")
		})
	}
}

// openDamaged makes a store in which one bit in the value of "bad" is wrong.
func openDamaged(t *testing.T, size int) *DB {
	disk := newDisk()
	db := open(t, "", &Options{FS: disk})
	mustPut(t, db, "bad", string(bytes.Repeat([]byte("v"), size)))
	mustPut(t, db, "good", "value")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	name := segment.ID(1).FileName()
	data, err := disk.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[segment.HeaderSize+48+3+size/2] ^= 1
	disk.WriteFile(name, data)
	return open(t, "", &Options{FS: disk})
}

// A Value outlives the overwriting and the deletion of its key.
func TestValueKeepsWhatItSaw(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	m := &Metadata{ContentType: "text/plain", User: []Pair{{Name: "a", Value: "b"}}}
	if err := db.Put([]byte("k"), []byte("first"), &PutOptions{Metadata: m}); err != nil {
		t.Fatal(err)
	}
	v, err := db.Value([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "k", "second")
	if err := db.Delete([]byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	if b, err := v.Bytes(); err != nil || string(b) != "first" {
		t.Error(b, err)
	}
	if b, err := v.Range(1, 3); err != nil || string(b) != "irs" {
		t.Error(b, err)
	}
	if m, err := v.Metadata(); err != nil || m.ContentType != "text/plain" || len(m.User) != 1 {
		t.Error(m, err)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 6}, {6, 0}, {1 << 62, 1 << 62}} {
		if _, err := v.Range(r[0], r[1]); err == nil {
			t.Errorf("range %v accepted", r)
		}
	}
	if n := db.Stats().Values; n != 1 {
		t.Errorf("%d open values", n)
	}
	v.Close()
	v.Close()
	if _, err := v.Bytes(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if n := db.Stats().Values; n != 0 {
		t.Errorf("%d open values", n)
	}
}

// After Close every call says so, and handles stay valid.
func TestClosed(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	mustPut(t, db, "k", "value")
	v, err := db.Value([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); !errors.Is(err, ErrOpenHandles) {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error("second Close:", err)
	}
	if b, err := v.Bytes(); err != nil || string(b) != "value" {
		t.Error(b, err)
	}
	v.Close()
	_, getErr := db.Get(nil, []byte("k"))
	_, snapErr := db.Snapshot()
	for name, err := range map[string]error{
		"Put": db.Put([]byte("k"), nil, nil), "Get": getErr, "Snapshot": snapErr, "Sync": db.Sync(),
		"Lend": db.Lend([]byte("k"), nil),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
