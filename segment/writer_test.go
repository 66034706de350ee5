package segment

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// Short writes are continued until all is written.
func TestShortWrites(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 1<<20)
	disk.Fail(func(op, name string, n int) error {
		if op == simdisk.OpWriteVec {
			return simdisk.Short{N: 1000}
		}
		return nil
	})
	value := bytes.Repeat([]byte("0123456789"), 1000)
	var records []*Record
	for range 3 {
		r := NewPut([]byte("key"), nil, value)
		w.Append(r)
		records = append(records, r)
	}
	flush(t, w)
	disk.Fail(nil)
	s := reopen(t, disk)
	for _, r := range records {
		if got, err := s.Verify(r.Offset); err != nil || !bytes.Equal(got.Value, value) {
			t.Error(err)
		}
	}
}

// A full disk shows in Reserve, before anything is written, and the Writer can
// go on once there is room.
func TestReserveFails(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 1<<20)
	full := true
	disk.Fail(func(op, name string, n int) error {
		if op == simdisk.OpReserve && full {
			return syscall.ENOSPC
		}
		return nil
	})
	w.Append(NewPut([]byte("key"), nil, nil))
	if err := w.Reserve(0, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	w.Discard()
	full = false
	r := NewPut([]byte("key"), nil, nil)
	w.Append(r)
	flush(t, w)
	if r.Offset != HeaderSize || w.Tally().Records != 1 {
		t.Errorf("offset %d, tally %+v", r.Offset, w.Tally())
	}
}

// The last sync before a record is what the record carries.
func TestDurableTo(t *testing.T) {
	w := newTestWriter(t, simdisk.New(), 1<<20)
	for range 3 {
		synced := w.Segment().Synced()
		r := NewPut([]byte("key"), nil, nil)
		w.Append(r)
		flush(t, w)
		if r.DurableTo != synced {
			t.Errorf("durableTo %d, want %d", r.DurableTo, synced)
		}
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		if w.Segment().Synced() != r.End {
			t.Errorf("synced to %d, want %d", w.Segment().Synced(), r.End)
		}
	}
}

// Ranges of a large value are verified by their chunks alone.
func TestVerifyRange(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 4<<20)
	put := NewPut([]byte("large"), nil, make([]byte, 2<<20))
	w.Append(put)
	flush(t, w)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	data, _ := disk.ReadFile(ID(1).FileName())
	data[put.ValueOffset()+1<<20] ^= 1 // chunk 4
	disk.WriteFile(ID(1).FileName(), data)
	s := reopen(t, disk)
	r, err := s.Read(HeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	var damage *CorruptError
	for _, test := range []struct {
		from, n int64
		ok      bool
	}{
		{0, 1 << 20, true}, {0, 1<<20 + 1, false}, {1 << 20, 0, true}, {1 << 20, 1, false},
		{1<<20 + 1<<18, 1<<20 - 1<<18, true}, {0, 2 << 20, false}, {2<<20 - 1, 1, true},
	} {
		p := s.Payload(&r)
		err := p.Verify(test.from, test.n, true)
		if (err == nil) != test.ok || err != nil && !errors.As(err, &damage) {
			t.Errorf("range %d+%d: %v", test.from, test.n, err)
		}
	}
}
