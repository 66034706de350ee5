package blockdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/crowfly/crowfly/db"
)

const keysOfWriter = 6

// key of a writer. No two writers share one, so each knows what its keys hold.
func key(writer, k int) []byte { return fmt.Appendf(nil, "writer %d/key %d", writer, k) }

// value number n of a writer. It says itself whose it is.
func value(writer, n, size int) []byte {
	b := make([]byte, size)
	rng := rand.New(rand.NewPCG(uint64(writer), uint64(n)))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	binary.LittleEndian.PutUint32(b, uint32(writer))
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
	return b
}

const minValue = 8

// write is one put, delete or batch.
type write struct {
	Changes []change
	Synced  bool   // acknowledged when durable
	Begin   uint64 // positions of the log of the disk
	Acked   uint64 // 0 for never
}

// change is a put, or with Value 0 a delete.
type change struct{ Key, Value, Size int }

// journal is what one writer did, one write after the other.
type journal []write

// state is what the keys of a writer hold: numbers of values, 0 for none.
type state [keysOfWriter]int

func (s state) with(w write) state {
	for _, c := range w.Changes {
		s[c.Key] = c.Value
	}
	return s
}

// check tells why a store can't hold found after a power cut. It has to hold
// what some first part of the writes leaves: at least everything up to the last
// one that was acknowledged as durable before the cut, and nothing that began
// later.
func (j journal) check(found state, cut uint64) error {
	least, most := j.bounds(cut)
	var s state
	for i := 0; ; i++ {
		if i >= least && s == found {
			return nil
		}
		if i == most {
			break
		}
		s = s.with(j[i])
	}
	var must state
	for _, w := range j[:least] {
		must = must.with(w)
	}
	return fmt.Errorf("the store has values %v; after the %d writes acknowledged as durable it had %v, and %d more had begun",
		found, least, must, most-least)
}

// bounds returns how many of the writes are certain at a cut, and how many
// possible.
func (j journal) bounds(cut uint64) (least, most int) {
	for i, w := range j {
		if w.Synced && w.Acked > 0 && w.Acked <= cut {
			least = i + 1
		}
		if w.Begin < cut {
			most = i + 1
		}
	}
	return least, most
}

// read returns what the keys of a writer hold, if all of it was once put.
func (j journal) read(store *db.DB, writer int) (found state, err error) {
	sizes := make(map[int]int)
	for _, w := range j {
		for _, c := range w.Changes {
			sizes[c.Value] = c.Size
		}
	}
	for k := range found {
		got, err := store.Get(nil, key(writer, k))
		if errors.Is(err, db.ErrNotFound) {
			continue
		}
		if err != nil {
			return found, err
		}
		if found[k], err = number(got, writer, sizes); err != nil {
			return found, fmt.Errorf("%s: %w", key(writer, k), err)
		}
	}
	return found, nil
}

// number returns the number of a value that came out of a store.
func number(got []byte, writer int, sizes map[int]int) (int, error) {
	if len(got) >= minValue {
		n := int(binary.LittleEndian.Uint32(got[4:]))
		if size := sizes[n]; size == len(got) && slices.Equal(got, value(writer, n, size)) {
			return n, nil
		}
	}
	return 0, fmt.Errorf("a value of %d bytes that was never put: %x", len(got), got[:min(len(got), 16)])
}

// verify opens the store that a power cut left, compares it with what the
// writers did, goes on writing and looks whether that lasts.
func verify(dir string, journals []journal, cut uint64) error {
	store, err := db.Open(dir, options())
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	found := make(map[int]state)
	for w, j := range journals {
		found[w], err = j.read(store, w)
		if err == nil {
			err = j.check(found[w], cut)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("writer %d: %w", w, err), store.Close())
		}
	}
	err = errors.Join(goOn(store), store.Close())
	if err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	if store, err = db.Open(dir, options()); err != nil {
		return fmt.Errorf("open after recovery: %w", err)
	}
	again := make(map[int]state)
	for w, j := range journals {
		if again[w], err = j.read(store, w); err != nil {
			return errors.Join(fmt.Errorf("after recovery: writer %d: %w", w, err), store.Close())
		}
	}
	if !maps.Equal(found, again) {
		err = fmt.Errorf("after recovery the store had %v, now %v", found, again)
	}
	return errors.Join(err, wentOn(store), store.Close())
}

// goOn writes to a recovered store, beside what the writers put there.
func goOn(store *db.DB) error {
	return errors.Join(
		store.Put([]byte("new"), []byte("value"), nil),
		store.Put([]byte("gone"), []byte("value"), nil),
		store.Delete([]byte("gone"), nil),
	)
}

// wentOn looks for what goOn wrote.
func wentOn(store *db.DB) error {
	got, err := store.Get(nil, []byte("new"))
	if err != nil || string(got) != "value" {
		return fmt.Errorf("put after recovery: got %q, %v", got, err)
	}
	if _, err := store.Get(nil, []byte("gone")); !errors.Is(err, db.ErrNotFound) {
		return fmt.Errorf("delete after recovery: %v", err)
	}
	return nil
}
