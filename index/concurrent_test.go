package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crowfly/crowfly/segment"
)

// run starts readers beside a writer and stops them when it is done.
func run(t *testing.T, write func(), read func() error) {
	t.Helper()
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() && !t.Failed() {
				if err := read(); err != nil {
					t.Error(err)
				}
				runtime.Gosched() // there may be one processor for all
			}
		})
	}
	write()
	done.Store(true)
	wg.Wait()
}

// generation looks a key up as a reader must and returns the number that is
// its value, 0 if it is absent.
func (s *store) generation(key []byte) (uint64, error) {
	hit, err := s.index.Lookup(key)
	if err == ErrAbsent {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	r, err := hit.Segment.Verify(hit.Offset)
	if err != nil {
		return 0, err
	}
	if string(r.Key) != string(key) {
		return 0, fmt.Errorf("%q found for %q", r.Key, key)
	}
	hit.MarkVerified(r.End)
	n := binary.BigEndian.Uint64(r.Value)
	runtime.KeepAlive(hit.Segment)
	return n, nil
}

// groupKeys is how many keys a test group has.
const groupKeys = 64

func groupKey(i int) []byte { return fmt.Appendf(nil, "member %03d of the group", i) }

// writeGroup writes one generation of all keys of the group.
func (s *store) writeGroup(generation uint64) (group []Change) {
	for i := range groupKeys {
		value := binary.BigEndian.AppendUint64(nil, generation)
		group = append(group, s.write(segment.NewPut(groupKey(i), nil, value)))
	}
	return group
}

// TestNobodySeesHalfAGroup: once a reader has seen one key of a generation, no
// other key is older, though tables grow, records move and segments go.
func TestNobodySeesHalfAGroup(t *testing.T) {
	s := newStore(t)
	s.size = 64 << 10
	last := s.writeGroup(1)
	s.index.Publish(last, s.seq)

	write := func() {
		for generation := uint64(2); generation < 100; generation++ {
			group := s.writeGroup(generation)
			s.index.Publish(group, s.seq)
			for i := range 20 {
				filler := s.write(segment.NewPut(s.neighbor(groupKey(i%4), generation, i), nil, nil))
				s.index.Publish([]Change{filler}, s.seq)
			}
			if generation%10 == 0 {
				s.compactAll()
			}
		}
	}
	read := func() error {
		newest := uint64(0)
		for range 200 {
			i := rand.IntN(groupKeys)
			n, err := s.generation(groupKey(i))
			if err != nil {
				return err
			}
			if n < newest {
				return fmt.Errorf("key %d is of generation %d after another of %d", i, n, newest)
			}
			newest = n
		}
		return nil
	}
	run(t, write, read)
}

// neighbor makes a new key in the same shard, so that the table of that shard
// soon grows.
func (s *store) neighbor(key []byte, generation uint64, i int) []byte {
	shard := s.index.hash(key).shard()
	for n := 0; ; n++ {
		k := fmt.Appendf(nil, "neighbor %d %d %d", generation, i, n)
		if s.index.hash(k).shard() == shard {
			return k
		}
	}
}

// compactAll moves all live records of all but the active segment.
func (s *store) compactAll() {
	s.t.Helper()
	victims, active := s.index.Segments(), s.writer.Segment()
	var moves []Move
	for at := range s.snapshot().Ascend(nil, nil).All() {
		if at.Segment == active {
			continue
		}
		r, err := at.Read()
		if err != nil {
			s.t.Fatal(err)
		}
		c := s.copyOf(Change{Ref: at.Ref()})
		moves = append(moves, Move{r.Key, at.Ref(), c.Ref, c.Size})
	}
	s.index.Repoint(moves)
	for seg := range victims.All() {
		if seg != active {
			s.drop(seg)
		}
	}
	runtime.GC()
}

// TestDeletedGroupIsGone: groups of puts and groups of deletes by turns. Seen
// through one key the group is there or not; a reader that sees a key of a
// later generation never finds an earlier one absent or older.
func TestDeletedGroupIsGone(t *testing.T) {
	s := newStore(t)
	// state is twice the last generation acknowledged, plus one if it has
	// been deleted since.
	var state atomic.Uint64

	write := func() {
		for generation := uint64(1); generation < 100; generation++ {
			group := s.writeGroup(generation)
			s.index.Publish(group, s.seq)
			state.Store(2 * generation)

			group = group[:0]
			for i := range groupKeys {
				group = append(group, s.write(segment.NewDelete(groupKey(i))))
			}
			s.index.Publish(group, s.seq)
			state.Store(2*generation + 1)
		}
	}
	read := func() error {
		before := state.Load()
		n, err := s.generation(groupKey(rand.IntN(groupKeys)))
		if err != nil {
			return err
		}
		after := state.Load()
		if n == 0 && before == after && before%2 == 0 && before > 0 {
			// A delete may have been published without being acknowledged.
			m, err := s.generation(groupKey(rand.IntN(groupKeys)))
			if err != nil || m != 0 && m <= before/2 {
				return errors.Join(err, fmt.Errorf("absent, then generation %d of %d", m, before/2))
			}
		}
		if n != 0 && 2*n < before-before%2 {
			return fmt.Errorf("generation %d after %d was acknowledged", n, before/2)
		}
		if n != 0 && 2*n+1 <= before {
			return fmt.Errorf("generation %d after its delete was acknowledged", n)
		}
		return nil
	}
	run(t, write, read)
}

// TestReaderWaits: a record above Visible is neither answered nor skipped.
func TestReaderWaits(t *testing.T) {
	s := newStore(t)
	s.put("key", "old")
	s.index.Publish([]Change{s.write(segment.NewPut([]byte("key"), nil, []byte("new")))}, 0)
	found := make(chan string)
	go func() {
		value, _ := s.get("key")
		found <- value
	}()
	for range 100 {
		runtime.Gosched()
		select {
		case value := <-found:
			t.Fatalf("found %q, which is not visible yet", value)
		default:
		}
	}
	s.index.Publish(nil, s.seq)
	if value := <-found; value != "new" {
		t.Errorf("found %q, want the new version", value)
	}
}

// TestSnapshotsBesideWriter: clones are read while their original changes.
func TestSnapshotsBesideWriter(t *testing.T) {
	s := newStore(t)
	s.size = 16 << 20
	s.rotate()
	s.index.Publish(s.writeGroup(1), s.seq)

	write := func() {
		for generation := uint64(2); generation < 100; generation++ {
			s.index.Publish(s.writeGroup(generation), s.seq)
		}
	}
	read := func() error {
		o, err := s.index.Snapshot()
		if err != nil {
			return err
		}
		n, generation := 0, o.Seq()/groupKeys
		for at := range o.Ascend(nil, nil).All() {
			r, err := at.Segment.Verify(at.Offset)
			if err != nil {
				return err
			}
			if string(r.Key) != string(groupKey(n)) {
				return fmt.Errorf("%q at place %d", r.Key, n)
			}
			if g := binary.BigEndian.Uint64(r.Value); g != generation {
				return fmt.Errorf("generation %d in a snapshot of %d", g, generation)
			}
			n++
		}
		if n != groupKeys {
			return fmt.Errorf("%d keys in a snapshot, want %d", n, groupKeys)
		}
		return nil
	}
	run(t, write, read)
}

// TestRepointBesidePublish: a key that is put while its record moves names what
// was put, however the two meet. Method: one goroutine puts the keys that
// another moves, as fast as they can.
func TestRepointBesidePublish(t *testing.T) {
	const moves, keys = 20_000, 4
	s := newStore(t)
	s.size = 32 << 20
	s.rotate()
	mover := *s // has a segment of its own
	mover.rotate()
	key := func(n int) string { return fmt.Sprint("key", n%keys) }
	for n := range keys {
		s.put(key(n), "")
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for n := range moves {
			hit, err := s.index.Lookup([]byte(key(n)))
			if err != nil {
				t.Error(err)
				return
			}
			old := hit.Ref()
			c := mover.copyOf(Change{Ref: old})
			s.index.Repoint([]Move{{c.Key, old, c.Ref, c.Size}})
		}
	})
	for n := 0; !done.Load() && !t.Failed() && s.writer.Fits(1<<10); n++ {
		value := fmt.Sprint(n)
		s.put(key(n), value)
		s.wantValue(key(n), value)
	}
	wg.Wait()
}
