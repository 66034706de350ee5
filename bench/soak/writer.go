package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crowfly/crowfly/db"
)

// writer does the next operation of keys that nobody else writes.
type writer struct {
	*soak
	batch  db.Batch
	keys   []uint64 // in the batch
	values []byte   // in the batch
	value  []byte   // of a put alone
}

func (s *soak) newWriter() *writer { return &writer{soak: s} }

// write writes at the rate given until the end: mostly one key at a time, at
// times many.
func (s *soak) write(worker uint64) error {
	const many, manyEvery = 16, 8
	w := s.newWriter()
	pace := s.newPace(s.rate / writers)
	for turn := 0; pace.wait(); turn++ {
		if turn%manyEvery > 0 {
			if err := w.alone(s.keyFor(worker)); err != nil {
				return err
			}
			pace.did(1)
			continue
		}
		for range many {
			if key := s.keyFor(worker); !w.isLarge(key) && !slices.Contains(w.keys, key) {
				w.add(key)
			}
		}
		pace.did(len(w.keys))
		if err := w.apply(); err != nil {
			return err
		}
	}
	return nil
}

// keyFor is a key that belongs to this writer.
func (s *soak) keyFor(worker uint64) uint64 {
	for {
		if key := s.key(); key%writers == worker {
			return key
		}
	}
}

func (w *writer) next(key uint64) uint32 { return w.model.done[key].Load() + 1 }

// isLarge reports whether the next value of a key would have a file of its own.
func (w *writer) isLarge(key uint64) bool {
	n := w.next(key)
	return !w.model.isDelete(key, n) && int64(w.model.size(key, n)) >= w.model.blobSize
}

// alone does the next operation of a key.
func (w *writer) alone(key uint64) error {
	n := w.next(key)
	if !w.model.isDelete(key, n) {
		w.value = w.model.value(w.value[:0], key, n)
		if err := w.patiently(func() error { return w.store.Put(keyOf(key), w.value, nil) }); err != nil {
			return err
		}
		w.count(key, n)
		return nil
	}
	err := w.patiently(func() error { return w.store.Delete(keyOf(key), nil) })
	there := !errors.Is(err, db.ErrNotFound)
	if there && err != nil {
		return err
	}
	return w.judge(key, n, there)
}

// judge compares whether a key had a value before operation n.
func (w *writer) judge(key uint64, n uint32, there bool) error {
	if there == w.model.isDelete(key, n-1) {
		return fmt.Errorf("before operation %d key %d had a value: %v, which is wrong", n, key, there)
	}
	w.count(key, n)
	return nil
}

// add has the batch do the next operation of a key.
func (w *writer) add(key uint64) {
	n := w.next(key)
	if w.model.isDelete(key, n) {
		w.batch.Delete(keyOf(key))
	} else {
		from := len(w.values)
		w.values = w.model.value(w.values, key, n)
		w.batch.Put(keyOf(key), w.values[from:], nil)
	}
	w.keys = append(w.keys, key)
}

// apply does what was added.
func (w *writer) apply() error {
	if err := w.patiently(func() error { return w.store.Apply(&w.batch, nil) }); err != nil {
		return err
	}
	for i, key := range w.keys {
		if err := w.judge(key, w.next(key), w.batch.Result(i).Existed); err != nil {
			return err
		}
	}
	w.batch.Reset()
	w.keys, w.values = w.keys[:0], w.values[:0]
	return nil
}

// count says that an operation was acknowledged.
func (w *writer) count(key uint64, n uint32) {
	w.live.Add(w.model.bytes(key, n) - w.model.bytes(key, n-1))
	w.model.done[key].Store(n)
	w.writes.Add(1)
}

// patiently writes again while readers hold too much.
func (w *writer) patiently(write func() error) error {
	const pause, tries = 100 * time.Millisecond, 3000
	err := write()
	for i := 0; i < tries && errors.Is(err, db.ErrPinnedSpace); i++ {
		w.rejected.Add(1)
		time.Sleep(pause)
		err = write()
	}
	return err
}

// pace keeps to a rate.
type pace struct {
	*soak
	rate float64
	due  time.Time
}

func (s *soak) newPace(rate float64) *pace { return &pace{s, rate, time.Now()} }

// did notes so many operations.
func (p *pace) did(n int) {
	p.due = p.due.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
}

// wait waits until the next one is due and reports whether to go on. What can't
// be done in time is not made up for.
func (p *pace) wait() bool {
	const least, most = time.Millisecond, time.Second
	ahead := time.Until(p.due)
	if ahead < -most {
		p.due = time.Now()
	}
	if ahead < least {
		ahead = 0
	}
	return p.sleep(ahead)
}
