package db

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// A closed Value or Snapshot holds nothing, even if it is still reachable: puts
// go on, and what it could read goes.
func TestClosedHandleHoldsNothing(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1})
	mustPut(t, db, "small", "old")
	mustPut(t, db, "large", string(randomBytes(1<<20)))
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.All() {
		if _, err := e.Bytes(); err != nil {
			t.Fatal(err)
		}
	}
	handles := []interface{ Close() error }{mustValue(t, db, "small"), mustValue(t, db, "large"), s}
	mustPut(t, db, "small", "new")
	mustPut(t, db, "large", "new")
	compactAll(t, db)
	reclaimUntil(t, db, "puts are refused", func(Pinned) bool { return db.pinnedError() != nil })
	for _, h := range handles {
		h.Close()
	}
	reclaimUntil(t, db, "all is gone", func(s Pinned) bool { return s.Segments == 0 && db.pinnedError() == nil })
	runtime.KeepAlive(handles)
}

// What a closed Value is asked for is refused, or is still known.
func TestClosedValue(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	mustPut(t, db, "k", "value")
	v := mustValue(t, db, "k")
	version := v.Version()
	v.Close()
	_, bytesErr := v.Bytes()
	_, extentErr := v.Extent(0, 1)
	_, metadataErr := v.Metadata()
	_, readErr := v.Read(make([]byte, 1))
	_, writeErr := v.WriteTo(new(bytes.Buffer))
	for name, err := range map[string]error{
		"Bytes": bytesErr, "Extent": extentErr, "Metadata": metadataErr, "Read": readErr, "WriteTo": writeErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v.Size() != 5 || v.Version() != version || v.Extents() != nil || !v.ModTime().IsZero() {
		t.Errorf("size %d, version %v, %v, %v", v.Size(), v.Version(), v.Extents(), v.ModTime())
	}
}

// A Close that comes while other goroutines still read is against the rules, but
// each of their calls ends with the bytes or ErrClosed. Method: the segment is
// dead and collections go on meanwhile.
func TestCloseDuringUse(t *testing.T) {
	const rounds, readers = 8, 3
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1})
	for n := range rounds {
		want := randomBytes(testBlobSize / 2 * (1 + n%4)) // in the segment or not
		mustPut(t, db, "k", string(want))
		v := mustValue(t, db, "k")
		if err := db.Delete([]byte("k"), nil); err != nil {
			t.Fatal(err)
		}
		compactAll(t, db)
		var reading, begun sync.WaitGroup
		begun.Add(readers)
		for range readers {
			reading.Go(func() {
				err := readUntilClosed(v, want, begun.Done)
				if !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
		begun.Wait()
		v.Close()
		for range 3 {
			runtime.GC()
		}
		reading.Wait()
		reclaimUntil(t, db, "all is gone", func(s Pinned) bool { return s.Segments == 0 })
	}
}

// readUntilClosed reads a value until that fails. It calls begun after the first time.
func readUntilClosed(v *Value, want []byte, begun func()) error {
	got := make([]byte, len(want))
	for first := true; ; first = false {
		_, err := v.ReadAt(got, 0)
		if first {
			begun()
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("other bytes of %q", v.handle.key)
		}
		if _, err := v.Metadata(); err != nil {
			return err
		}
	}
}
