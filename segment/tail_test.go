package segment

import (
	"fmt"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// writeBatches makes a segment of n batches of three records, each written and
// synced alone, and returns it with the ends of the batches.
func writeBatches(t *testing.T, n int) (*simdisk.Disk, *Writer, []int64) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 1<<16)
	var ends []int64
	seq := uint64(0)
	for i := range n {
		for j := range 3 {
			r := NewPut(fmt.Appendf(nil, "key %d %d", i, j), nil, []byte("some value"))
			if j > 0 {
				r.Flags &^= FlagFirst
			}
			seq++
			r.Seq, r.Left = seq, uint16(2-j)
			w.Append(r)
		}
		flush(t, w)
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, w.Segment().Len())
	}
	return disk, w, ends
}

// The table of damages: what is done to the file, and what recovery must
// conclude from it.
func TestRecoverTail(t *testing.T) {
	for _, test := range []struct {
		name          string
		damage        func(data []byte, ends []int64) []byte
		valid, proven int // number of batches
	}{
		{"whole", func(d []byte, e []int64) []byte { return d }, 4, 3},
		{"last batch cut", func(d []byte, e []int64) []byte { return d[:e[3]-1] }, 3, 3},
		{"last batch lacks a record", func(d []byte, e []int64) []byte { return d[:e[3]-80] }, 3, 3},
		{"last batch damaged", func(d []byte, e []int64) []byte { d[e[2]+60] ^= 1; return d }, 3, 3},
		{"acknowledged batch damaged", func(d []byte, e []int64) []byte { d[e[1]+60] ^= 1; return d }, 2, 3},
		{"first batch zeroed", func(d []byte, e []int64) []byte { clear(d[HeaderSize:e[0]]); return d }, 0, 3},
		{"two batches cut", func(d []byte, e []int64) []byte { return d[:e[1]] }, 2, 1},
		{"zeros behind", func(d []byte, e []int64) []byte { return append(d, make([]byte, 9000)...) }, 4, 3},
		{"garbage behind", func(d []byte, e []int64) []byte { return append(d, d[HeaderSize:]...) }, 4, 3},
		{"header only", func(d []byte, e []int64) []byte { return d[:HeaderSize] }, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk, _, ends := writeBatches(t, 4)
			data, _ := disk.ReadFile(ID(1).FileName())
			disk.WriteFile(ID(1).FileName(), test.damage(data, ends))
			tail := reopen(t, disk).RecoverTail(0)
			at := func(n int) int64 {
				if n == 0 {
					return HeaderSize
				}
				return ends[n-1]
			}
			if tail.Valid != at(test.valid) || max(tail.Proven, HeaderSize) != at(test.proven) {
				t.Errorf("got %+v, want %d and %d", tail, at(test.valid), at(test.proven))
			}
		})
	}
}

// A watermark proves the batch before it, and so damage to that is damage.
func TestWatermarkProves(t *testing.T) {
	disk, w, ends := writeBatches(t, 2)
	if !w.Unmarked() {
		t.Error("the last batch counts as marked")
	}
	w.Append(NewWatermark(6))
	flush(t, w)
	if w.Unmarked() {
		t.Error("a watermark does not mark")
	}
	if tail := reopen(t, disk).RecoverTail(0); tail.Proven != ends[1] || tail.Valid != ends[1]+WatermarkSize {
		t.Errorf("got %+v", tail)
	}
}

// A reader beside the writer sees the file grow and what of it is durable.
func TestFollowTail(t *testing.T) {
	disk, w, ends := writeBatches(t, 1)
	s, err := Open(disk, 1, testStore, WholeFile, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	r := NewPut([]byte("more"), nil, []byte("value"))
	r.Seq = 4
	w.Append(r)
	flush(t, w)
	tail, err := s.FollowTail(ends[0])
	if err != nil || tail.Valid != r.End || tail.Proven != ends[0] {
		t.Fatalf("got %+v, %v", tail, err)
	}
	if err := s.Grow(tail.Valid); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Verify(r.Offset); err != nil || string(got.Key) != "more" {
		t.Error(got, err)
	}
}
