package main

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

const valueSize = 4096

// load is readers and writers that begin their calls at given moments, whether
// or not the store keeps up.
type load struct {
	store            *db.DB
	keys             int
	readers, writers int
	views, puts      float64 // a second, by all together; 0 is as many as possible
}

// latencies of the calls of one kind. A call counts from when it was due if the
// one before it took too long, else from when its goroutine was awake: how late
// the system wakes a sleeper is counted apart.
type latencies struct{ call, wake measure.Histogram }

func (l *latencies) merge(o *latencies) {
	l.call.Merge(&o.call)
	l.wake.Merge(&o.wake)
}

// measured is what came of a load.
type measured struct {
	took      time.Duration
	view, put latencies
}

func (m *measured) merge(o *measured) {
	m.took += o.took
	m.view.merge(&o.view)
	m.put.merge(&o.put)
}

// worker calls at random moments with a mean rate.
type worker struct {
	latencies
	rng  *rand.Rand
	call func(number uint64) error
	rate float64
	err  error
}

// run goes on until stop is set or a call fails.
func (w *worker) run(keys int, stop *atomic.Bool) {
	due := time.Now()
	for w.err == nil && !stop.Load() {
		from := w.await(&due)
		w.err = w.call(w.rng.Uint64N(uint64(keys)))
		w.latencies.call.Add(time.Since(from))
	}
}

// await returns when the next call is due, with the moment from which it counts.
func (w *worker) await(due *time.Time) time.Time {
	if w.rate == 0 {
		return time.Now()
	}
	*due = due.Add(time.Duration(w.rng.ExpFloat64() / w.rate * float64(time.Second)))
	ahead := time.Until(*due)
	if ahead <= 0 {
		return *due
	}
	time.Sleep(ahead)
	awake := time.Now()
	w.wake.Add(awake.Sub(*due))
	return awake
}

// run puts the store under load until stop is set, and at most for so long.
func (l *load) run(length time.Duration, stop *atomic.Bool) (*measured, error) {
	timer := time.AfterFunc(length, func() { stop.Store(true) })
	defer timer.Stop()
	var workers []*worker
	for range l.readers {
		workers = append(workers, l.worker(l.view(), l.views/float64(l.readers)))
	}
	for range l.writers {
		workers = append(workers, l.worker(l.put(), l.puts/float64(l.writers)))
	}
	began := time.Now()
	var wait sync.WaitGroup
	for _, w := range workers {
		wait.Go(func() {
			w.run(l.keys, stop)
			if w.err != nil {
				stop.Store(true)
			}
		})
	}
	wait.Wait()
	return l.collect(workers, time.Since(began))
}

func (l *load) collect(workers []*worker, took time.Duration) (m *measured, err error) {
	m = &measured{took: took}
	for i, w := range workers {
		err = errors.Join(err, w.err)
		if i < l.readers {
			m.view.merge(&w.latencies)
		} else {
			m.put.merge(&w.latencies)
		}
	}
	return m, err
}

// worker has its own random numbers.
func (l *load) worker(call func(uint64) error, rate float64) *worker {
	return &worker{rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), call: call, rate: rate}
}

// view reads a byte of every cache line of a value.
func (l *load) view() func(uint64) error {
	var key []byte
	var sum byte
	touch := func(value []byte) error {
		for i := 0; i < len(value); i += 64 {
			sum += value[i]
		}
		return nil
	}
	return func(number uint64) error {
		key = measure.Key(key[:0], number)
		return l.store.View(key, touch)
	}
}

// put puts a value in the default mode: it returns when that is on disk.
func (l *load) put() func(uint64) error {
	var key []byte
	value := make([]byte, valueSize)
	measure.Fill(value, 0, 1)
	return func(number uint64) error {
		key = measure.Key(key[:0], number)
		return l.store.Put(key, value, &db.PutOptions{Sync: db.SyncAlways})
	}
}
