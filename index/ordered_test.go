package index

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// refsOf returns the Refs of all keys in [start, end), in order.
func refsOf(live map[string]Change, start, end []byte) (refs []segment.Ref) {
	for _, key := range slices.Sorted(maps.Keys(live)) {
		if key >= string(start) && (end == nil || key < string(end)) {
			refs = append(refs, live[key].Ref)
		}
	}
	return refs
}

// checkOrder compares a snapshot with a map, in both directions and in ranges
// that begin and end at keys, between them and nowhere.
func (s *store) checkOrder(r *rand.Rand, set [][]byte, live map[string]Change) {
	s.t.Helper()
	o := s.snapshot()
	if o.Len() != len(live) {
		s.t.Fatalf("ordered index has %d keys, want %d", o.Len(), len(live))
	}
	s.checkRange(o, live, nil, nil)
	for range 30 {
		a, b := set[r.IntN(len(set))], set[r.IntN(len(set))]
		s.checkRange(o, live, a, b)
		s.checkRange(o, live, a, nil)
		s.checkRange(o, live, nil, b)
		s.checkRange(o, live, append(slices.Clone(a), 0), append(slices.Clone(b), 0))
	}
	s.checkRange(o, live, []byte{}, []byte{})
	for _, key := range set {
		at, err := o.Get(key)
		want, ok := live[string(key)]
		if ok && (err != nil || at.Ref() != want.Ref) || !ok && err != ErrAbsent {
			s.t.Fatalf("Get(%q) = %+v, %v; want %x, %v", key, at, err, want.Ref, ok)
		}
	}
}

func refsIn(s *Scan) (refs []segment.Ref) {
	for at := range s.All() {
		refs = append(refs, at.Ref())
	}
	return refs
}

func (s *store) checkRange(o *Ordered, live map[string]Change, start, end []byte) {
	s.t.Helper()
	want := refsOf(live, start, end)
	if got := refsIn(o.Ascend(start, end)); !slices.Equal(got, want) {
		s.t.Fatalf("Ascend(%q, %q): %d records, want %d", start, end, len(got), len(want))
	}
	slices.Reverse(want)
	if got := refsIn(o.Descend(start, end)); !slices.Equal(got, want) {
		s.t.Fatalf("Descend(%q, %q): %d records, want %d", start, end, len(got), len(want))
	}
}

// TestPages: iterations that end just before, at and behind a page's end.
func TestPages(t *testing.T) {
	s := newStore(t)
	live := make(map[string]Change)
	for i := range 3*pageLen + 1 {
		key := fmt.Sprintf("the same beginning %04d", i)
		live[key] = s.put(key, "")
		if i%pageLen <= 1 || i%pageLen == pageLen-1 {
			o := s.snapshot()
			s.checkRange(o, live, nil, nil)
			s.checkRange(o, live, nil, []byte(key))
			s.checkRange(o, live, []byte("the same beginning 0001"), nil)
		}
	}
}

// TestIteratorsCanBeLeft: by break, by panic, and for another iteration.
func TestIteratorsCanBeLeft(t *testing.T) {
	s := newStore(t)
	for i := range 500 {
		s.put(fmt.Sprintf("%04d", i), "")
	}
	o := s.snapshot()
	for _, all := range []iter.Seq[Location]{o.Ascend(nil, []byte("x")).All(), o.Descend([]byte("0"), nil).All()} {
		for range maxProbes + 1 {
			for range all {
				break
			}
			func() {
				defer func() { recover() }()
				for range all {
					panic("user code")
				}
			}()
		}
		n := 0
		for range all {
			for range all {
				n++
			}
		}
		if n != 500*500 {
			t.Errorf("nested iterations yield %d, want %d", n, 500*500)
		}
	}
	for i := range s.index.keys.probes {
		if s.index.keys.probes[i].taken.Load() {
			t.Errorf("probe %d was not given back", i)
		}
	}
}

// TestSnapshotsStayAsTheyAre, whatever is written, moved or dropped later.
func TestSnapshotsStayAsTheyAre(t *testing.T) {
	s := newStore(t)
	live := make(map[string]Change)
	for i := range 1000 {
		key := fmt.Sprintf("key %05d", i)
		live[key] = s.put(key, "old")
	}
	o := s.snapshot()
	frozen := maps.Clone(live)

	first := s.writer.Segment()
	s.rotate()
	var moves []Move
	for i := range 1000 {
		key := fmt.Sprintf("key %05d", i)
		switch i % 4 {
		case 0:
			s.delete(key)
		case 1:
			s.put(key, "new")
		default:
			c := s.copyOf(live[key])
			moves = append(moves, Move{c.Key, live[key].Ref, c.Ref, c.Size})
		}
		s.put("another "+key, "")
	}
	s.index.Repoint(moves)
	s.drop(first)
	first = nil
	collect()

	s.checkRange(o, frozen, nil, nil)
	for key, c := range frozen {
		at, err := o.Get([]byte(key))
		if err != nil || at.Ref() != c.Ref {
			t.Fatalf("Get(%q) = %+v, %v; want %x", key, at, err, c.Ref)
		}
		if r, err := at.Read(); err != nil || string(r.Value) != "old" {
			t.Fatalf("%q is %q, %v", key, r.Value, err)
		}
	}
}

// TestSnapshotIsOneMoment: the sequence number belongs to the keys.
func TestSnapshotIsOneMoment(t *testing.T) {
	s := newStore(t)
	for i := range 100 {
		s.put(fmt.Sprint(i), "")
		o, err := s.index.Snapshot()
		if err != nil || o.Len() != i+1 || o.Seq() != s.seq {
			t.Fatalf("%d keys up to %d, want %d up to %d", o.Len(), o.Seq(), i+1, s.seq)
		}
	}
}

func TestRepoint(t *testing.T) {
	s := newStore(t)
	still, newer, gone := s.put("still", "1"), s.put("newer", "1"), s.put("gone", "1")
	s.snapshot()
	s.rotate()
	var moves []Move
	for _, c := range []Change{still, newer, gone} {
		moved := s.copyOf(c)
		moves = append(moves, Move{c.Key, c.Ref, moved.Ref, moved.Size})
	}
	unknown := s.write(segment.NewPut([]byte("unknown"), nil, nil))
	moves = append(moves, Move{unknown.Key, still.Ref, unknown.Ref, unknown.Size})
	second := s.put("newer", "2")
	s.delete("gone")
	s.index.Repoint(moves)

	s.wantValue("still", "1")
	s.wantValue("newer", "2")
	s.wantAbsent("gone")
	s.wantAbsent("unknown")
	live := map[string]Change{
		"still": {Ref: moves[0].New, Size: moves[0].Size},
		"newer": second,
	}
	s.wantBooks(live)
	o := s.snapshot()
	s.checkRange(o, live, nil, nil)
}

// TestRepointTombstone: recovery may move tombstones before it drops them.
func TestRepointTombstone(t *testing.T) {
	s := loadingStore(t, Options{})
	c := s.delete("key")
	moved := s.copyOf(c)
	s.index.Repoint([]Move{{c.Key, c.Ref, moved.Ref, moved.Size}})
	s.wantAbsent("key")
	s.wantBooks(nil)
	s.index.DropTombstones()
	if n := words(s.index); n != 0 {
		t.Errorf("%d words left", n)
	}
}

// TestRepointDrains: the feed may name records that the ordered index never
// took in, in a segment that leaves.
func TestRepointDrains(t *testing.T) {
	s := newStore(t)
	s.snapshot()
	s.put("key", "1")
	first := s.writer.Segment()
	s.rotate()
	c := s.put("key", "2")
	s.index.Repoint(nil)
	slot := first.Slot()
	s.drop(first)
	first = nil
	for s.index.keys.slots.memory(slot) != nil {
		collect()
	}
	o := s.snapshot()
	s.checkRange(o, map[string]Change{"key": c}, nil, nil)
}

func TestSweep(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		s := loadingStore(t, Options{KeepTombstones: true})
		live := make(map[string]Change)
		for i := range feedSize + 100 {
			key := fmt.Sprintf("key %06d", i)
			live[key] = s.put(key, "")
		}
		s.delete("tombstone")
		if ordered {
			s.snapshot()
		}
		first := s.writer.Segment()
		slots := make(map[int]bool)
		for _, c := range live {
			slots[c.Ref.Slot()] = true
		}
		s.rotate()
		moved := s.copyOf(live["key 000007"])
		s.index.Publish([]Change{moved}, s.seq)
		live = map[string]Change{"key 000007": moved, "new": s.put("new", "")}

		removed := s.sweep(func(slot int) bool { return slots[slot] })
		if want := feedSize + 100; removed != want {
			t.Errorf("%d words removed, want %d", removed, want)
		}
		s.drop(first)
		s.wantBooks(live)
		s.wantAbsent("key 000008")
		s.wantAbsent("tombstone")
		s.wantValue("key 000007", "")
		if ordered && s.index.tree == nil {
			t.Error("the ordered index was dropped")
		}
		o := s.snapshot()
		s.checkRange(o, live, nil, nil)
	}
}

// TestFeedFills: more changes than the feed holds, one by one and at once.
func TestFeedFills(t *testing.T) {
	s := newStore(t)
	s.size = 16 << 20
	s.rotate()
	s.snapshot()
	live := make(map[string]Change)
	var group []Change
	for i := range 2*feedSize + 10 {
		key := fmt.Sprintf("one by one %d", i)
		live[key] = s.put(key, "")
		if n := len(s.index.feed); n > feedSize {
			t.Fatalf("%d changes in the feed", n)
		}
		key = fmt.Sprintf("at once %d", i)
		live[key] = s.write(segment.NewPut([]byte(key), nil, nil))
		group = append(group, live[key])
	}
	s.index.Publish(group, s.seq)
	o := s.snapshot()
	s.checkRange(o, live, nil, nil)
}

// TestFaultDropsTree: a page that can't be read costs the ordered index, not
// the commit. The next Snapshot tries again, and fails as long as it must.
func TestFaultDropsTree(t *testing.T) {
	if raceEnabled {
		t.Skip("mappings are on the heap")
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s := newStore(t)
	dir, err := vfs.OpenDir(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	s.disk = dir
	s.rotate()
	s.put("the same beginning", "")
	s.snapshot()
	behindEnd := s.writer.Segment().Ref(testCapacity / 2)
	s.index.Publish([]Change{{Key: []byte("the same"), Ref: behindEnd, Seq: s.seq, Kind: segment.KindPut}}, s.seq)
	s.index.Repoint(nil)
	if s.index.tree != nil {
		t.Error("the tree is still there")
	}
	s.wantValue("the same beginning", "")
	func() {
		defer func() {
			if p := recover(); !isFault(p) {
				t.Errorf("Snapshot panics with %v, want a fault", p)
			}
		}()
		s.snapshot()
	}()
	s.sweep(func(int) bool { return false }) // the lock is free
}

// TestDamageDropsTree: an edit that does not find its key.
func TestDamageDropsTree(t *testing.T) {
	s := newStore(t)
	c := s.put("key", "")
	s.put("other", "")
	s.snapshot()
	flip(s, c.Ref, 48, 0x80)
	s.delete("other")
	s.index.note(edit{item: item{prefixOf([]byte("lost")), c.Ref}, had: true, gone: true})
	s.index.Repoint(nil)
	if s.index.tree != nil {
		t.Error("a tree that lost its way is kept")
	}
	var damage *segment.CorruptError
	if o, err := s.index.Snapshot(); o != nil || !errors.As(err, &damage) || damage.Offset != c.Ref.Offset() {
		t.Errorf("Snapshot of a damaged key: %v, %v", o, err)
	}
}

// TestSort: the sort of the bulk load agrees with comparing whole keys.
func TestSort(t *testing.T) {
	s := newStore(t)
	r := rand.New(rand.NewPCG(1, 2))
	var items []item
	for _, key := range shuffled(r, keySet()) {
		c := s.write(segment.NewPut(key, nil, nil))
		items = append(items, item{prefixOf(key), c.Ref})
	}
	s.index.keys.sort(items)
	for i, it := range items {
		key := s.index.keys.key(it.ref)
		if it.prefix != prefixOf(key) {
			t.Fatalf("%q has lost its prefix", key)
		}
		if i > 0 && bytes.Compare(s.index.keys.key(items[i-1].ref), key) > 0 {
			t.Fatalf("%q before %q", s.index.keys.key(items[i-1].ref), key)
		}
	}
}

// TestProbesAreMany: more searches at a time than there are probes wait.
func TestProbesAreMany(t *testing.T) {
	s := newStore(t)
	s.put("key", "")
	o := s.snapshot()
	errs := make(chan error)
	for range 4 * maxProbes {
		go func() {
			for range 50 {
				if _, err := o.Get([]byte("key")); err != nil {
					errs <- errors.New("key not found")
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 * maxProbes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
