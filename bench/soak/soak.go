package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

const (
	writers = 2
	readers = 2
	holders = 4
)

// soak is a store with those who use it, and counts what they do.
type soak struct {
	config
	store *db.DB
	dir   string
	model *model

	live     atomic.Int64 // bytes of values and keys
	writes   atomic.Int64
	reads    atomic.Int64 // each of them verified
	snaps    atomic.Int64 // snapshots that were read to the end
	expired  atomic.Int64 // and those that were not
	held     atomic.Int64 // values that were the same at the end
	rejected atomic.Int64 // writes that had to wait for readers to let go

	stop chan struct{} // closed at the end, or after the first error
	once sync.Once
	err  error
}

func (s *soak) fail(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.stop)
	})
}

// sleep reports whether to go on afterwards.
func (s *soak) sleep(d time.Duration) bool {
	if d <= 0 {
		return !s.stopped()
	}
	select {
	case <-s.stop:
		return false
	case <-time.After(d):
		return true
	}
}

func (s *soak) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// run has everybody at work for the time given, and takes samples.
func (s *soak) run(out io.Writer) (list []sample, err error) {
	s.stop = make(chan struct{})
	var wait sync.WaitGroup
	work := func(do func() error) {
		wait.Go(func() {
			if err := do(); err != nil {
				s.fail(err)
			}
		})
	}
	for i := range writers {
		work(func() error { return s.write(uint64(i)) })
	}
	for range readers {
		work(s.read)
	}
	for i := range holders {
		work(func() error { return s.holdValues(i == 0) })
	}
	work(s.holdSnapshots)
	work(func() (err error) { list, err = s.sampler(out); return err })
	if s.sleep(s.length) {
		s.fail(nil)
	}
	wait.Wait()
	return list, s.err
}

// fill does the first operation of every key.
func (s *soak) fill() error {
	w := s.newWriter()
	for key := range uint64(s.keys) {
		if w.isLarge(key) {
			if err := w.alone(key); err != nil {
				return err
			}
			continue
		}
		w.add(key)
		if w.batch.Len() == 256 {
			if err := w.apply(); err != nil {
				return err
			}
		}
	}
	return w.apply()
}

// finish verifies everything, now and after another start.
func (s *soak) finish(out io.Writer) error {
	began := time.Now()
	if err := s.verifyAll(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nverified     all %d keys in %.1f s; before that %d reads, %d snapshots (%d others expired) and %d values held; %d writes had to wait for readers\n",
		s.keys, time.Since(began).Seconds(), s.reads.Load(), s.snaps.Load(), s.expired.Load(), s.held.Load(), s.rejected.Load())
	segments := s.longSegments()
	began = time.Now()
	if err := s.store.Close(); err != nil {
		return err
	}
	closed := time.Since(began)
	hints, err := filepath.Glob(filepath.Join(s.dir, "*.hint"))
	if err != nil {
		return err
	}
	began = time.Now()
	store, err := db.Open(s.dir, &s.options)
	if err != nil {
		return err
	}
	s.store = store
	defer store.Close()
	opened := time.Since(began)
	if err := s.countKeys(); err != nil {
		return err
	}
	for range s.verified {
		if err := s.readKey(rand.Uint64N(uint64(s.keys)), s.get); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "reopened     closed in %.2f s, opened in %.2f s with %d hints for %d segments of a MiB and more, %d keys verified\n",
		closed.Seconds(), opened.Seconds(), len(hints), segments, s.verified)
	return nil
}

// longSegments is how many segments there are for which a hint is worth it.
func (s *soak) longSegments() (n int) {
	for _, g := range s.store.Stats().Segments {
		if g.Length >= 1<<20 {
			n++
		}
	}
	return n
}

// verifyAll looks at each key, with as many goroutines as there are readers.
func (s *soak) verifyAll() error {
	errs := make([]error, readers)
	var wait sync.WaitGroup
	for i := range readers {
		wait.Go(func() {
			for key := i; key < s.keys && errs[i] == nil; key += readers {
				errs[i] = s.readKey(uint64(key), s.view)
			}
		})
	}
	wait.Wait()
	return errors.Join(append(errs, s.countKeys())...)
}

func (s *soak) countKeys() error {
	if got, want := s.store.Stats().Keys, s.model.present(); got != want {
		return fmt.Errorf("the store has %d keys, want %d", got, want)
	}
	return nil
}

// key is the number of a key to use. Half the time it is one of a tenth.
func (s *soak) key() uint64 {
	n := uint64(s.keys)
	if rand.IntN(2) == 0 {
		n /= 10
	}
	return rand.Uint64N(n)
}

func keyOf(number uint64) []byte { return measure.Key(nil, number) }
