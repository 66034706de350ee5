package index

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

const testCapacity = 1 << 20

// store is the least of a store around an index: segments on a simulated disk,
// one of them written to, and a sequence number.
type store struct {
	t      testing.TB
	disk   vfs.FS
	index  *Index
	writer *segment.Writer
	id     segment.ID
	seq    uint64
	size   int64 // capacity of the next segment
}

// newStore returns an empty store past recovery.
func newStore(t testing.TB) *store {
	s := loadingStore(t, Options{})
	s.index.DropTombstones()
	return s
}

func loadingStore(t testing.TB, o Options) *store {
	s := &store{t: t, disk: simdisk.New(), index: New(o), size: testCapacity}
	s.rotate()
	return s
}

// rotate starts a new segment that readers can see.
func (s *store) rotate() *segment.Segment {
	s.t.Helper()
	s.id++
	seg, w, err := segment.Create(s.disk, s.id, segment.StoreID{}, 1, s.size)
	if err == nil {
		err = s.index.Attach(seg)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.writer = w
	return seg
}

// drop takes a segment from the readers.
func (s *store) drop(seg *segment.Segment) { s.index.Detach(seg.ID()) }

// write appends a record under the next sequence number, or under seq if it
// has one, and returns what to publish.
func (s *store) write(r *segment.Record) Change {
	if r.Seq == 0 {
		s.seq++
		r.Seq = s.seq
	}
	if !s.writer.Fits(segment.MaxRecordSize(len(r.Key), len(r.Meta), len(r.Value))) {
		s.rotate()
	}
	s.writer.Append(r)
	if err := s.writer.Write(); err != nil {
		s.t.Fatal(err)
	}
	return Change{
		Key:  r.Key,
		Ref:  s.writer.Segment().Ref(r.Offset),
		Seq:  r.Seq,
		Kind: r.Kind,
		Size: r.End - r.Offset,
	}
}

func (s *store) put(key, value string) Change {
	s.t.Helper()
	c := s.write(segment.NewPut([]byte(key), nil, []byte(value)))
	s.index.Publish([]Change{c}, s.seq)
	return c
}

func (s *store) delete(key string) Change {
	s.t.Helper()
	c := s.write(segment.NewDelete([]byte(key)))
	s.index.Publish([]Change{c}, s.seq)
	return c
}

// copyOf writes the record again, as compaction does.
func (s *store) copyOf(c Change) Change {
	s.t.Helper()
	r := s.record(c.Ref)
	r.Flags |= segment.FlagCopied
	r.Left, r.DurableTo = 0, 0
	return s.write(&r)
}

func (s *store) record(ref segment.Ref) segment.Record {
	s.t.Helper()
	r, err := s.index.Segments().At(ref).Read()
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// get returns the value of a key.
func (s *store) get(key string) (value string, ok bool) {
	s.t.Helper()
	hit, err := s.index.Lookup([]byte(key))
	if errors.Is(err, ErrAbsent) {
		return "", false
	}
	if err != nil {
		s.t.Fatalf("Lookup(%q): %v", key, err)
	}
	r, err := hit.Segment.Read(hit.Offset)
	if err != nil {
		s.t.Fatal(err)
	}
	if string(r.Key) != key || r.Seq != hit.Seq {
		s.t.Fatalf("Lookup(%q) found %q, sequence %d, hit says %d", key, r.Key, r.Seq, hit.Seq)
	}
	return string(r.Value), true
}

// wantGlance checks that Glance finds what Lookup has found, or first another record
// of the same bits of a hash.
func (s *store) wantGlance(key string, found Hit) {
	s.t.Helper()
	glance := s.index.Glance([]byte(key))
	found.Seq = 0
	if glance == found {
		return
	}
	if glance.Segment == nil {
		s.t.Fatalf("Glance(%q) finds nothing, Lookup %+v", key, found)
	}
	r, err := glance.Segment.Read(glance.Offset)
	a, b := s.index.hash(r.Key), s.index.hash([]byte(key))
	if err != nil || string(r.Key) == key && r.Kind != segment.KindDelete || a.shard() != b.shard() || a.bits() != b.bits() {
		s.t.Fatalf("Glance(%q) finds %q, %v", key, r.Key, err)
	}
}

func (s *store) wantValue(key, want string) {
	s.t.Helper()
	if got, ok := s.get(key); !ok || got != want {
		s.t.Errorf("%q is %q, %v; want %q", key, got, ok, want)
	}
}

func (s *store) wantAbsent(key string) {
	s.t.Helper()
	if got, ok := s.get(key); ok {
		s.t.Errorf("%q is %q; want it absent", key, got)
	}
}

func (s *store) snapshot() *Ordered {
	o, err := s.index.Snapshot()
	if err != nil {
		s.t.Error(err)
	}
	return o
}

// wantBooks checks the counts against the records that are live.
func (s *store) wantBooks(live map[string]Change) {
	s.t.Helper()
	if got := s.index.Len(); got != len(live) {
		s.t.Errorf("Len() = %d, want %d", got, len(live))
	}
	want := make([]Usage, s.index.Segments().Slots())
	for _, c := range live {
		want[c.Ref.Slot()].Records++
		want[c.Ref.Slot()].Bytes += c.Size
	}
	for slot := range want {
		got := s.index.usage[slot]
		got.Tombstones = 0
		if got != want[slot] {
			s.t.Errorf("usage[%d] = %+v, want %+v", slot, got, want[slot])
		}
	}
	for shard, want := range s.index.fills {
		if got := count(s.index.tables[shard].Load()); got != want {
			s.t.Errorf("shard %d has %+v, accounts say %+v", shard, got, want)
		}
	}
}

func count(t *table) (f fill) {
	if t == nil {
		return f
	}
	for pos := range t.words {
		switch t.load(pos) {
		case empty:
		case marker:
			f.markers++
			fallthrough
		default:
			f.used++
		}
	}
	return f
}

// keySet makes keys that are hard to tell apart: every byte value, prefixes of
// each other, zeros at the end, long common beginnings.
func keySet() [][]byte {
	var set [][]byte
	for b := range 256 {
		set = append(set, []byte{byte(b)})
	}
	long := bytes.Repeat([]byte("common/prefix/"), 10)
	for n := 2; n <= 40; n++ {
		set = append(set, make([]byte, n), long[:n], append(make([]byte, n), 0xff))
	}
	for b := range 64 {
		set = append(set,
			append(slices.Clone(long), byte(b)),
			append(slices.Clone(long), byte(b), 0),
			append([]byte("12345678"), byte(b)),
			append([]byte("12345678"), byte(b), 0, 0, 0, 0, 0, 0, 0, byte(b)))
	}
	return set
}

// collisions returns groups of at least two keys with the same shard and the
// same hash bits.
func collisions(x *Index, n int) (groups [][][]byte) {
	seen := make(map[word][][]byte)
	for i := range n {
		key := []byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i), 'c'}
		h := x.hash(key)
		id := word(h >> (64 - shardBits - hashBits))
		seen[id] = append(seen[id], key)
	}
	for _, g := range seen {
		if len(g) > 1 {
			groups = append(groups, g)
		}
	}
	return groups
}

func shuffled[T any](r *rand.Rand, s []T) []T {
	s = slices.Clone(s)
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}

// sweep removes what names segments that are gone, and returns how many words
// that were.
func (s *store) sweep(gone func(slot int) bool) (removed int) {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	removed = len(s.index.orphans(gone))
	s.index.publish(nil, 0, gone)
	s.index.drain()
	return removed
}
