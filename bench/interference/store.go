package main

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

// subject is a store with compaction at one rate, paused except in going phases.
type subject struct {
	name string
	load load
	full int64 // bytes beyond the space target after a refill

	resume func()
}

const batchSize = 256

func openSubject(name, dir string, c config, rate int64) (*subject, error) {
	s, err := db.Open(dir, &db.Options{CompactionRate: rate, SegmentSize: c.segment})
	if err != nil {
		return nil, err
	}
	u := &subject{name: name, load: load{store: s, keys: c.keys(), readers: c.readers, writers: c.writers}}
	u.resume = s.PauseCompaction()
	order := rand.Perm(u.load.keys)
	err = u.write(func(i int) (int, bool) { return order[i%len(order)], i < len(order) })
	return u, err
}

// write puts values under the numbers that next returns, with one sync at the end.
func (u *subject) write(next func(i int) (int, bool)) error {
	value := make([]byte, valueSize)
	measure.Fill(value, 0, 2)
	var b db.Batch
	for i := 0; ; i++ {
		n, more := next(i)
		if more {
			b.Put(measure.Key(nil, uint64(n)), value, nil)
		}
		if b.Len() == batchSize || !more {
			if err := u.load.store.Apply(&b, &db.PutOptions{Sync: db.SyncNever}); err != nil {
				return err
			}
			b.Reset()
		}
		if !more {
			return u.load.store.Sync()
		}
	}
}

// refill overwrites as many random keys as there are, some more than once: so
// old segments are two thirds garbage, and new ones a third.
func (u *subject) refill() error {
	err := u.write(func(i int) (int, bool) { return rand.IntN(u.load.keys), i < u.load.keys })
	u.full = u.backlog()
	return err
}

func (u *subject) backlog() int64 { return u.load.store.Stats().Compaction.Backlog }

func (u *subject) bytesRead() int64 { return u.load.store.Stats().Compaction.BytesRead }

// prepare makes sure there is garbage, and that no read is the first of its value.
func (u *subject) prepare(settle time.Duration) error {
	if u.backlog() <= u.full/2 {
		if err := u.refill(); err != nil {
			return err
		}
	}
	view := u.load.view()
	for n := range u.load.keys {
		if err := view(uint64(n)); err != nil {
			return err
		}
	}
	time.Sleep(settle) // what else it has set in motion may come to rest
	return nil
}

// slice is a part of a phase, as long as there is garbage.
func (u *subject) slice(going bool, length time.Duration) (*measured, error) {
	var stop atomic.Bool
	if !going {
		return u.load.run(length, &stop)
	}
	u.resume()
	time.Sleep(goingAfter)
	if m, err := u.load.run(goingAfter, new(atomic.Bool)); err != nil {
		return m, err
	} // a start that does not count
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !stop.Load() {
			time.Sleep(lookEvery)
			if u.backlog() == 0 {
				stop.Store(true)
			}
		}
	}()
	m, err := u.load.run(length, &stop)
	<-ended
	u.resume = u.load.store.PauseCompaction()
	return m, err
}

const (
	goingAfter = 200 * time.Millisecond // after resume compaction goes on
	lookEvery  = 100 * time.Millisecond
)
