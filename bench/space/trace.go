package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
)

// sample is what a store takes at one moment.
type sample struct {
	measure.Space
	pinned
	at    time.Duration // since the trace began
	ratio float64       // Space.Sum over live bytes
}

// trace is a series of samples, at least one.
type trace []sample

func (t trace) first() sample { return t[0] }
func (t trace) last() sample  { return t[len(t)-1] }

// reached is when the ratio was first at most that.
func (t trace) reached(ratio float64) (time.Duration, bool) {
	for _, s := range t {
		if s.ratio <= ratio {
			return s.at, true
		}
	}
	return 0, false
}

// result is what was measured of one store.
type result struct {
	store           string
	wrote           time.Duration
	idle            trace // from the last write on
	compacted       time.Duration
	after           trace // from the end of the compaction on
	checked, failed error // of what is in it, and of what was held
}

// measure runs the workload on one store.
func (c config) measure(out io.Writer, name, dir string, w *workload) (*result, error) {
	dir = filepath.Join(dir, name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := open(name, dir, c)
	if err != nil {
		return nil, err
	}
	r := &result{store: name}
	err = c.fill(out, r, s, dir, w)
	if err == nil {
		r.checked = w.verify(s)
		if h, ok := s.(holder); ok {
			r.failed = h.release()
		}
	}
	err = errors.Join(err, s.close())
	runtime.GC() // what this store leaves behind must not be a burden to the next
	return r, err
}

// fill writes and watches.
func (c config) fill(out io.Writer, r *result, s store, dir string, w *workload) error {
	began := time.Now()
	err := w.write(s, func() error {
		if h, ok := s.(holder); ok {
			return h.hold(w)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.wrote = time.Since(began)
	fmt.Fprintf(out, "%s: written in %.1f s, then:", r.store, r.wrote.Seconds())
	if r.idle, err = c.trace(out, s, dir, w.live, c.watch); err != nil {
		return err
	}
	began = time.Now()
	if err := s.compact(); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	r.compacted = time.Since(began)
	fmt.Fprintf(out, "%s: compacted in %.1f s, then:", r.store, r.compacted.Seconds())
	r.after, err = c.trace(out, s, dir, w.live, c.settle)
	return err
}

// trace takes samples for so long, and prints the ratios.
func (c config) trace(out io.Writer, s store, dir string, live int64, length time.Duration) (t trace, err error) {
	began := time.Now()
	for next := time.Duration(0); next <= length; next += c.sample {
		time.Sleep(next - time.Since(began))
		here := sample{at: time.Since(began)}
		if here.Space, err = measure.Allocated(dir); err != nil {
			return nil, err
		}
		if p, ok := s.(watched); ok {
			here.pinned = p.pinned()
		}
		here.ratio = float64(here.Sum()) / float64(live)
		t = append(t, here)
		fmt.Fprintf(out, " %.2f", here.ratio)
	}
	fmt.Fprintln(out)
	return t, nil
}
