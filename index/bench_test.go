package index

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

const benchKeys = 1_000_000

// benchKey is 16 bytes that look random.
func benchKey(b []byte, i int) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(i)*0x9e3779b97f4a7c15)
	return binary.BigEndian.AppendUint64(b, uint64(i))
}

// sharedKey is 40 bytes of which the first 24 say nothing.
func sharedKey(b []byte, i int) []byte {
	return fmt.Appendf(b, "tenant-0001/bucket-0001/%016x", uint64(i)*0x9e3779b97f4a7c15)
}

// benchStore writes benchKeys records to a real file and returns their changes, not
// published yet.
func benchStore(b *testing.B, key func([]byte, int) []byte) (*store, []Change) {
	b.Helper()
	dir, err := vfs.OpenDir(b.TempDir(), false)
	if err != nil {
		b.Fatal(err)
	}
	s := &store{t: b, disk: dir, index: New(Options{}), size: 256 << 20}
	seg := s.rotate()
	s.index.DropTombstones()
	changes := make([]Change, benchKeys)
	for i := range changes {
		s.seq++
		r := segment.NewPut(key(nil, i), nil, []byte("value"))
		r.Seq = s.seq
		s.writer.Append(r)
		changes[i] = Change{r.Key, seg.Ref(r.Offset), r.Seq, r.Kind, r.End - r.Offset}
		if i%4096 == 4095 || i == benchKeys-1 {
			if err := s.writer.Write(); err != nil {
				b.Fatal(err)
			}
		}
	}
	return s, changes
}

func (s *store) publishAll(changes []Change) {
	for len(changes) > 0 {
		n := min(len(changes), 4096)
		s.index.Publish(changes[:n], s.seq)
		changes = changes[n:]
	}
}

func BenchmarkLookup(b *testing.B) {
	s, changes := benchStore(b, benchKey)
	s.publishAll(changes)
	bench := func(name string, offset int) {
		b.Run(name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			var key [16]byte
			for b.Loop() {
				k := benchKey(key[:0], r.IntN(benchKeys)+offset)
				if _, err := s.index.Lookup(k); (err == nil) != (offset == 0) {
					b.Fatal(err)
				}
			}
		})
	}
	bench("hit", 0)
	bench("miss", benchKeys)
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			var key [16]byte
			for pb.Next() {
				if _, err := s.index.Lookup(benchKey(key[:0], rand.IntN(benchKeys))); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkPublish gives times per record.
func BenchmarkPublish(b *testing.B) {
	s, changes := benchStore(b, benchKey)
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("load/", size), func(b *testing.B) {
			segs := s.index.Segments()
			s.index = New(Options{})
			for seg := range segs.All() {
				if err := s.index.Attach(seg); err != nil {
					b.Fatal(err)
				}
			}
			s.benchPublish(b, changes, size)
		})
	}
	s.publishAll(changes)
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("overwrite/", size), func(b *testing.B) { s.benchPublish(b, changes, size) })
	}
	s.snapshot()
	b.Run("overwrite/256/ordered", func(b *testing.B) { s.benchPublish(b, changes, 256) })
}

// benchPublish publishes the changes round and round.
func (s *store) benchPublish(b *testing.B, changes []Change, size int) {
	rest := changes
	for i := 0; i < b.N; i += size {
		if len(rest) < size {
			rest = changes
		}
		s.index.Publish(rest[:size], s.seq)
		rest = rest[size:]
	}
}

// BenchmarkSnapshot: the first one builds the ordered index, the next clone it.
func BenchmarkSnapshot(b *testing.B) {
	for _, name := range []string{"random", "shared"} {
		key := benchKey
		if name == "shared" {
			key = sharedKey
		}
		s, changes := benchStore(b, key)
		s.publishAll(changes)
		b.Run("first/"+name, func(b *testing.B) {
			for b.Loop() {
				s.index.tree = nil
				s.snapshot()
			}
		})
		b.Run("next/"+name, func(b *testing.B) {
			for b.Loop() {
				s.snapshot()
			}
		})
		o := s.snapshot()
		b.Run("ascend/"+name, func(b *testing.B) {
			n := 0
			for n < b.N {
				for range o.Ascend(nil, nil).All() {
					n++
				}
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				if _, err := o.Get(changes[r.IntN(benchKeys)].Key); err != nil {
					b.Fatal("not found")
				}
			}
		})
	}
}
