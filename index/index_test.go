package index

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
)

func TestEmpty(t *testing.T) {
	s := newStore(t)
	s.wantAbsent("key")
	s.delete("key")
	s.wantAbsent("key")
	o := s.snapshot()
	for range o.Ascend(nil, nil).All() {
		t.Error("an empty index has an item")
	}
	for range o.Descend(nil, nil).All() {
		t.Error("an empty index has an item")
	}
}

func TestPutGetDelete(t *testing.T) {
	s := newStore(t)
	s.put("a", "1")
	s.put("b", "2")
	s.wantValue("a", "1")
	s.put("a", "3")
	s.wantValue("a", "3")
	s.wantValue("b", "2")
	s.delete("a")
	s.wantAbsent("a")
	s.wantValue("b", "2")
	s.put("a", "4")
	s.wantValue("a", "4")
	if got := s.index.Len(); got != 2 {
		t.Errorf("Len() = %d, want 2", got)
	}
}

func TestVisibleNeverFalls(t *testing.T) {
	x := New(Options{})
	x.Publish(nil, 7)
	x.Publish(nil, 3)
	if got := x.Visible(); got != 7 {
		t.Errorf("Visible() = %d, want 7", got)
	}
}

// TestSequence: which of two records of one key stays.
func TestSequence(t *testing.T) {
	put := func(seq uint64, value string) *segment.Record {
		r := segment.NewPut([]byte("key"), nil, []byte(value))
		r.Seq = seq
		return r
	}
	tombstone := func(seq uint64) *segment.Record {
		r := segment.NewDelete([]byte("key"))
		r.Seq = seq
		return r
	}
	for _, test := range []struct {
		name          string
		first, second *segment.Record
		want          string // "" for absent
	}{
		{"newer put", put(5, "a"), put(6, "b"), "b"},
		{"older put", put(6, "a"), put(5, "b"), "a"},
		{"same put elsewhere", put(5, "a"), put(5, "b"), "b"},
		{"newer tombstone", put(5, "a"), tombstone(6), ""},
		{"older tombstone", put(6, "a"), tombstone(5), "a"},
		{"tombstone wins a tie", put(5, "a"), tombstone(5), ""},
		{"put loses a tie", tombstone(5), put(5, "b"), ""},
		{"put after tombstone", tombstone(5), put(6, "b"), "b"},
		{"older put after tombstone", tombstone(6), put(5, "b"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := loadingStore(t, Options{})
			for _, r := range []*segment.Record{test.first, test.second} {
				s.index.Publish([]Change{s.write(r)}, 0)
			}
			s.index.Publish(nil, 9)
			check := func() {
				t.Helper()
				if test.want == "" {
					s.wantAbsent("key")
				} else {
					s.wantValue("key", test.want)
				}
			}
			check()
			s.index.DropTombstones()
			check()
		})
	}
}

// TestDamagedSequence: a sequence number that was never published does not
// keep later puts out.
func TestDamagedSequence(t *testing.T) {
	s := newStore(t)
	c := s.put("key", "old")
	flip(s, c.Ref, 40+6, 1)
	s.put("key", "new")
	s.wantValue("key", "new")
}

// TestDropTombstones: an index keeps tombstones while it is filled, and then
// no more.
func TestDropTombstones(t *testing.T) {
	s := loadingStore(t, Options{})
	for i := range 100 {
		s.delete(fmt.Sprint(i))
	}
	if n := words(s.index); n != 100 {
		t.Fatalf("%d words while loading, want 100", n)
	}
	s.put("7", "again")
	s.index.DropTombstones()
	s.wantValue("7", "again")
	s.wantAbsent("8")
	s.delete("7")
	before := used(s.index)
	for i := range 100 {
		s.delete(fmt.Sprint("absent ", i))
	}
	if n := words(s.index); n != 0 {
		t.Errorf("%d words for nothing", n)
	}
	if n := used(s.index); n > before {
		t.Errorf("%d markers for keys that never were", n-before)
	}
}

func TestKeepTombstones(t *testing.T) {
	s := loadingStore(t, Options{KeepTombstones: true})
	late := s.write(segment.NewPut([]byte("key"), nil, []byte("late")))
	s.delete("key")
	s.index.Publish([]Change{late}, s.seq)
	s.wantAbsent("key")
	o := s.snapshot()
	if o.Len() != 0 || s.index.Len() != 0 {
		t.Errorf("a deleted key counts: ordered %d, Len %d", o.Len(), s.index.Len())
	}
	s.put("key", "new")
	s.wantValue("key", "new")
	if o = s.snapshot(); o.Len() != 1 {
		t.Errorf("ordered index has %d keys, want 1", o.Len())
	}
}

// TestGroup: later records of a group see the earlier ones.
func TestGroup(t *testing.T) {
	s := newStore(t)
	s.put("a", "old")
	s.snapshot() // from here on the feed is used
	s.index.Publish([]Change{
		s.write(segment.NewDelete([]byte("a"))),
		s.write(segment.NewPut([]byte("a"), nil, []byte("new"))),
		s.write(segment.NewPut([]byte("b"), nil, []byte("short-lived"))),
		s.write(segment.NewDelete([]byte("b"))),
	}, s.seq)
	s.wantValue("a", "new")
	s.wantAbsent("b")
	if o := s.snapshot(); o.Len() != 1 || s.index.Len() != 1 {
		t.Errorf("ordered %d, Len %d, want 1", o.Len(), s.index.Len())
	}
}

// TestChurn: markers are used again and tables full of them are rebuilt, so
// that keys which come and go don't make an index grow.
func TestChurn(t *testing.T) {
	s := newStore(t)
	s.size = 16 << 20
	s.rotate()
	for i := range 50_000 {
		key := fmt.Sprint(i)
		s.put(key, "")
		s.delete(key)
	}
	for shard := range s.index.tables {
		if n := len(s.index.tables[shard].Load().words); n != minTable {
			t.Fatalf("shard %d grew to %d words for one key", shard, n)
		}
	}
	// One key over and over takes one word.
	x, before := s.index, used(s.index)
	for range 1000 {
		s.put("same", "")
		s.delete("same")
	}
	if n := used(x); n > before+1 {
		t.Errorf("one key took %d words", n-before)
	}
}

// TestGrowth: tables are large enough, and not larger.
func TestGrowth(t *testing.T) {
	s := newStore(t)
	var group []Change
	live := make(map[string]Change)
	for i := range 50_000 {
		c := Change{Key: fmt.Append(nil, i), Ref: segment.MakeRef(0, 64), Seq: 1, Kind: segment.KindPut}
		live[string(c.Key)] = c
		if group = append(group, c); len(group) == 1000 {
			s.index.Publish(group, 1)
			group = group[:0]
		}
	}
	s.wantBooks(live)
	if n := s.index.TableBytes(); n < 50_000*8*4/3 || n > 50_000*8*4 {
		t.Errorf("%d bytes of tables", n)
	}
	for shard := range s.index.tables {
		size, fill := len(s.index.tables[shard].Load().words), s.index.fills[shard]
		if fill.used > size*3/4 || fill.used < size/4 {
			t.Errorf("shard %d: %d words in a table of %d", shard, fill.used, size)
		}
	}
}

// TestCollisions: keys that only their bytes tell apart.
func TestCollisions(t *testing.T) {
	s := newStore(t)
	groups := collisions(s.index, 1<<19)
	if len(groups) < 10 {
		t.Fatalf("only %d collisions", len(groups))
	}
	for _, g := range groups {
		a, b := string(g[0]), string(g[1])
		s.put(a, "a")
		s.wantAbsent(b)
		s.put(b, "b")
		s.wantValue(a, "a")
		s.wantValue(b, "b")
		s.delete(a)
		s.wantAbsent(a)
		// The chain leads over a's marker to b: b must not get a second word.
		s.put(b, "b2")
		s.delete(b)
		s.wantAbsent(b)
		s.put(b, "b3")
		s.wantValue(b, "b3")
	}
	if got := s.index.Len(); got != len(groups) {
		t.Errorf("Len() = %d, want %d", got, len(groups))
	}
}

func TestStale(t *testing.T) {
	s := newStore(t)
	s.put("old", "")
	before := s.index.Segments()
	s.rotate()
	s.put("new", "")
	search := func(key string) error {
		h := s.index.hash([]byte(key))
		_, err := s.index.search(s.index.tables[h.shard()].Load(), h.bits(), before, []byte(key), nil)
		return err
	}
	if err := search("new"); err != errStale {
		t.Errorf("search with an older set: %v, want errStale", err)
	}
	if err := search("old"); err != nil {
		t.Error(err)
	}
	now := s.index.segs.Swap(before)
	if hit := s.index.Glance([]byte("new")); hit != (Hit{}) {
		t.Errorf("Glance with an older set: %+v", hit)
	}
	// A lookup that has begun with the older set goes on with the next one.
	found := make(chan error)
	go func() {
		_, err := s.index.Lookup([]byte("new"))
		found <- err
	}()
	runtime.Gosched()
	s.index.segs.Store(now)
	if err := <-found; err != nil {
		t.Error(err)
	}
}

// TestDamage: a flipped bit never makes a key absent.
func TestDamage(t *testing.T) {
	const keyAt, seqAt, kindAt, lenAt = 48, 40, 28, 24
	for name, at := range map[string]int64{
		"key": keyAt, "sequence number": seqAt + 7, "kind": kindAt, "key length": lenAt, "long key": lenAt + 1,
	} {
		for bit := range 8 {
			s := newStore(t)
			c := s.put("key", "value")
			flip(s, c.Ref, at, 1<<bit)
			_, err := s.index.Lookup([]byte("key"))
			if _, ok := err.(*segment.CorruptError); !ok && (at != kindAt || err != nil) {
				t.Errorf("%s, bit %d flipped: %v", name, bit, err)
			}
		}
	}
}

func TestVerifiedMark(t *testing.T) {
	s := newStore(t)
	c := s.put("key", "value")
	end := c.Ref.Offset() + c.Size
	hit := func() Hit {
		t.Helper()
		h, err := s.index.Lookup([]byte("key"))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	hit().MarkVerified(end)
	if hit().Verified() {
		t.Fatal("a record is marked that is not durable")
	}
	if err := s.writer.Sync(); err != nil {
		t.Fatal(err)
	}
	hit().MarkVerified(end)
	if !hit().Verified() {
		t.Fatal("the mark is lost")
	}

	// A marked word is still found, replaced, moved and removed.
	stale := hit()
	moved := s.copyOf(c)
	s.index.Repoint([]Move{{c.Key, c.Ref, moved.Ref, moved.Size}})
	stale.MarkVerified(end)
	if h := hit(); h.Verified() || h.Offset != moved.Ref.Offset() {
		t.Errorf("after Repoint: offset %d, verified %v", h.Offset, h.Verified())
	}
	hit().MarkVerified(0)
	s.put("key", "new")
	if hit().Verified() {
		t.Error("a new version is marked")
	}
	hit().MarkVerified(0)
	s.delete("key")
	s.wantAbsent("key")
}

func TestLookupDoesNotAllocate(t *testing.T) {
	s := newStore(t)
	s.put("key", "value")
	hit, miss := []byte("key"), []byte("miss")
	if n := testing.AllocsPerRun(100, func() {
		h, err := s.index.Lookup(hit)
		if err != nil {
			t.Fatal(err)
		}
		h.MarkVerified(0)
		if _, err := s.index.Lookup(miss); err != ErrAbsent {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestSlotsComeBack: a slot is free once nobody has the Segment, not before.
func TestSlotsComeBack(t *testing.T) {
	s := newStore(t)
	first := s.writer.Segment()
	// A size that is not what the record really takes leaves Usage behind.
	c := s.write(segment.NewPut([]byte("key"), nil, nil))
	c.Size++
	s.index.Publish([]Change{c}, s.seq)
	s.delete("key")
	second := s.rotate()
	s.drop(first)
	held := first
	collect()
	if slot := s.rotate().Slot(); slot != 2 {
		t.Fatalf("slot %d given out while its Segment is held", slot)
	}
	runtime.KeepAlive(held)
	first, held = nil, nil
	for range 100 {
		collect()
		if s.index.keys.slots.memory(0) == nil {
			break
		}
	}
	if slot := s.rotate().Slot(); slot != 0 {
		t.Errorf("slot %d after slot 0 came back", slot)
	}
	if u := s.index.usage[0]; u != (Usage{}) {
		t.Errorf("a new segment begins with %+v", u)
	}
	runtime.KeepAlive(second)
}

func TestNoSlots(t *testing.T) {
	s := newStore(t)
	slots, mem := &s.index.keys.slots, new(held)
	for i := range slots {
		slots[i].CompareAndSwap(nil, new(slotChunk))
		for j := range slotsPerChunk {
			slots[i].Load()[j].CompareAndSwap(nil, mem)
		}
	}
	release(lease{slots, segment.MaxSlots - 1})
	if slot := s.rotate().Slot(); slot != segment.MaxSlots-1 {
		t.Errorf("slot %d given out, only the last is free", slot)
	}
	if err := s.index.Attach(s.writer.Segment()); err != ErrNoSlots {
		t.Errorf("Attach: %v, want ErrNoSlots", err)
	}
}

// TestModel compares an index with a map.
func TestModel(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	s := newStore(t)
	s.size = 64 << 10
	set := keySet()
	for _, g := range collisions(s.index, 1<<18) {
		set = append(set, g...)
	}
	live := make(map[string]Change)
	for round := range 40 {
		var group []Change
		for range r.IntN(400) {
			key := set[r.IntN(len(set))]
			if r.IntN(3) == 0 {
				group = append(group, s.write(segment.NewDelete(key)))
				delete(live, string(key))
			} else {
				c := s.write(segment.NewPut(key, nil, []byte(strings.Repeat("v", r.IntN(100)))))
				group = append(group, c)
				live[string(key)] = c
			}
		}
		s.index.Publish(group, s.seq)
		for _, key := range set {
			hit, err := s.index.Lookup(key)
			c, ok := live[string(key)]
			if ok && (err != nil || hit.Ref() != c.Ref) || !ok && err != ErrAbsent {
				t.Fatalf("round %d: Lookup(%q) = %+v, %v; want %+v, %v", round, key, hit, err, c, ok)
			}
			s.wantGlance(string(key), hit)
		}
		s.wantBooks(live)
		if round%5 == 4 {
			s.checkOrder(r, set, live)
		}
		if round%8 == 7 {
			s.compact(r, live)
		}
		if round == 20 {
			s.index.tree, s.index.feed = nil, nil // as after a fault
		}
	}
}

// compact moves the live records out of a segment and lets it go.
func (s *store) compact(r *rand.Rand, live map[string]Change) {
	s.t.Helper()
	segs := s.index.Segments()
	victim := r.IntN(segs.Slots())
	if segs.bySlot[victim] == nil || segs.bySlot[victim] == s.writer.Segment() {
		return
	}
	var moves []Move
	for key, c := range live {
		if c.Ref.Slot() == victim {
			moved := s.copyOf(c)
			moves = append(moves, Move{c.Key, c.Ref, moved.Ref, moved.Size})
			live[key] = moved
		}
	}
	s.index.Repoint(moves)
	s.drop(segs.bySlot[victim])
	segs = nil
	collect()
	if s.sweep(func(slot int) bool { return slot == victim }) != 0 {
		s.t.Error("words are left behind after Repoint")
	}
	s.wantBooks(live)
}

// flip changes a byte of a record on the disk below the index.
func flip(s *store, ref segment.Ref, at int64, bits byte) {
	s.index.Segments().At(ref).Segment.Bytes()[ref.Offset()+at] ^= bits
}

// collect forces a collection and gives the cleanups time to run.
func collect() {
	runtime.GC()
	time.Sleep(time.Millisecond)
}

// words counts those that name records.
func words(x *Index) (n int) {
	for shard := range x.fills {
		n += x.fills[shard].used - x.fills[shard].markers
	}
	return n
}

func used(x *Index) (n int) {
	for shard := range x.fills {
		n += x.fills[shard].used
	}
	return n
}
