package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

// read reads at the rate given until the end, in each way there is.
func (s *soak) read() error {
	ways := []readFunc{s.view, s.view, s.get, s.valueOf}
	pace := s.newPace(s.rate / readers)
	for turn := 0; pace.wait(); turn++ {
		if err := s.readKey(s.key(), ways[turn%len(ways)]); err != nil {
			return err
		}
		pace.did(1)
	}
	return nil
}

// readFunc has a value judged while it is valid.
type readFunc func(key []byte, judge func(value []byte) error) error

func (s *soak) view(key []byte, judge func([]byte) error) error { return s.store.View(key, judge) }

func (s *soak) get(key []byte, judge func([]byte) error) error {
	value, err := s.store.Get(nil, key)
	if err != nil {
		return err
	}
	return judge(value)
}

func (s *soak) valueOf(key []byte, judge func([]byte) error) error {
	v, err := s.store.Value(key)
	if err != nil {
		return err
	}
	defer v.Close()
	value, err := v.Bytes()
	if err != nil {
		return err
	}
	return judge(value)
}

// readKey reads a key and compares it with the model.
func (s *soak) readKey(key uint64, read readFunc) error {
	can := s.model.before(key)
	err := read(keyOf(key), func(value []byte) error {
		return s.model.check(key, s.model.after(can, key), value, true)
	})
	if errors.Is(err, db.ErrNotFound) {
		err = s.model.check(key, s.model.after(can, key), nil, false)
	}
	s.reads.Add(1)
	return err
}

// holdValues holds one value after the other for some time, all of them for
// long if long is set, and looks whether they are still the same then.
func (s *soak) holdValues(long bool) error {
	for {
		length := time.Duration(rand.Int64N(int64(2 * s.hold)))
		if long {
			length = 6*s.hold + length
		}
		again, err := s.holdValue(length)
		if err != nil || !again {
			return err
		}
	}
}

func (s *soak) holdValue(length time.Duration) (again bool, err error) {
	key := s.key()
	v, err := s.store.Value(keyOf(key))
	if errors.Is(err, db.ErrNotFound) {
		return s.sleep(0), nil
	}
	if err != nil {
		return false, err
	}
	defer v.Close()
	value, err := v.Bytes()
	if err != nil {
		return false, err
	}
	first, err := s.model.identify(value, key)
	if err != nil {
		return false, err
	}
	again = s.sleep(length)
	last, err := s.model.identify(value, key)
	if err == nil && last != first {
		err = fmt.Errorf("a held value of key %d went from operation %d to %d", key, first, last)
	}
	if err != nil {
		return false, fmt.Errorf("value held for %v: %w", length, err)
	}
	s.held.Add(1)
	return again, nil
}

// holdSnapshots takes snapshots, reads from each at once and when it is older,
// and has none for a while.
func (s *soak) holdSnapshots() error {
	for again := true; again; again = again && s.sleep(s.hold/2) {
		var err error
		again, err = s.holdSnapshot(time.Duration(rand.Int64N(int64(2 * s.hold))))
		switch {
		case errors.Is(err, db.ErrSnapshotExpired):
			s.expired.Add(1)
			again = !s.stopped()
		case err != nil:
			return fmt.Errorf("snapshot: %w", err)
		default:
			s.snaps.Add(1)
		}
	}
	return nil
}

// holdSnapshot compares some keys, and an iteration, with what the model says
// about the moment it was taken.
func (s *soak) holdSnapshot(length time.Duration) (again bool, err error) {
	const some = 200
	keys, spans := make([]uint64, some), make([]span, some)
	for i := range keys {
		keys[i] = s.key()
		spans[i] = s.model.before(keys[i])
	}
	snap, err := s.store.Snapshot()
	if err != nil {
		return false, err
	}
	defer snap.Close()
	for i, key := range keys {
		spans[i] = s.model.after(spans[i], key)
	}
	if err := s.compare(snap, keys, spans); err != nil {
		return false, err
	}
	again = s.sleep(length)
	if err := s.compare(snap, keys, spans); err != nil {
		return false, err
	}
	return again, s.iterate(snap)
}

// compare narrows the spans down to what it has seen: a snapshot never changes.
func (s *soak) compare(snap *db.Snapshot, keys []uint64, spans []span) error {
	for i, key := range keys {
		err := snap.View(keyOf(key), func(value []byte) error {
			if err := s.model.check(key, spans[i], value, true); err != nil {
				return err
			}
			n, err := s.model.identify(value, key)
			spans[i] = span{n, n}
			return err
		})
		if errors.Is(err, db.ErrNotFound) {
			err = s.model.check(key, spans[i], nil, false)
		}
		if err != nil {
			return err
		}
		s.reads.Add(1)
	}
	return nil
}

// iterate goes through a part of a snapshot in order.
func (s *soak) iterate(snap *db.Snapshot) error {
	const most = 1000
	var last []byte
	n := 0
	for key, entry := range snap.Range(keyOf(rand.Uint64N(uint64(s.keys))), nil) {
		if key == nil {
			return entry.Err()
		}
		if bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("key %q comes after %q", key, last)
		}
		last = key
		number, err := measure.Number(key)
		if err != nil {
			return err
		}
		value, err := entry.Bytes()
		if err != nil {
			return err
		}
		if _, err := s.model.identify(value, number); err != nil {
			return err
		}
		s.reads.Add(1)
		if n++; n == most {
			break
		}
	}
	return nil
}
