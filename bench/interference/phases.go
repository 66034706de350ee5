package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"

	"github.com/crowfly/crowfly/bench/measure"
)

// series is all that was measured of one store.
type series struct {
	name          string
	paused, going []*measured // by alternation
	compacted     int64       // bytes read while it went on
}

// measure has each store do its phases, in turn. The first series is that of the
// default rate.
func (c config) measure(out io.Writer, dir string) (list []*series, err error) {
	var subjects []*subject
	for _, s := range []struct {
		name string
		rate int64
	}{{"default rate", 0}, {"full rate", -1}} {
		u, err := openSubject(s.name, filepath.Join(dir, s.name), c, s.rate)
		if err != nil {
			return nil, err
		}
		defer u.load.store.Close()
		subjects, list = append(subjects, u), append(list, &series{name: s.name})
	}
	if err := c.choose(out, subjects); err != nil {
		return nil, err
	}
	for i := range c.alternations {
		for j, u := range subjects {
			if err := c.alternate(out, u, list[j], i%2 == 1); err != nil {
				return nil, fmt.Errorf("%s: %w", u.name, err)
			}
		}
	}
	return list, nil
}

// choose measures what the first store can do, and has all do a part of that.
func (c config) choose(out io.Writer, subjects []*subject) error {
	u := subjects[0]
	if err := u.prepare(c.settle); err != nil {
		return err
	}
	rate := func(l load) (views, puts float64, err error) {
		var stop atomic.Bool
		m, err := l.run(c.capacity, &stop)
		return float64(m.view.call.Total) / m.took.Seconds(), float64(m.put.call.Total) / m.took.Seconds(), err
	}
	readers, writers := u.load, u.load
	readers.writers, writers.readers = 0, 0
	views, _, err1 := rate(readers)
	_, puts, err2 := rate(writers)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, u := range subjects {
		u.load.views, u.load.puts = min(c.views, c.part*views), c.part*puts
	}
	fmt.Fprintf(out, "workload     %d MiB in values of %d bytes, in each of two stores\n", c.live>>20, valueSize)
	fmt.Fprintf(out, "capacity     %.0f views/s by %d goroutines, or %.0f synced puts/s by %d\n", views, c.readers, puts, c.writers)
	fmt.Fprintf(out, "load         %.0f views/s and %.0f puts/s, %d times %s for each line of the table\n\n",
		u.load.views, u.load.puts, c.alternations, c.phase)
	return nil
}

// alternate does a phase of each kind.
func (c config) alternate(out io.Writer, u *subject, s *series, goingFirst bool) error {
	for _, going := range []bool{goingFirst, !goingFirst} {
		read := u.bytesRead()
		m, err := c.measurePhase(u, going)
		if err != nil {
			return err
		}
		what := "paused"
		if going {
			what = "going"
			s.going = append(s.going, m)
			s.compacted += u.bytesRead() - read
		} else {
			s.paused = append(s.paused, m)
		}
		fmt.Fprintf(out, "%s, %s: p99 %s view, %s put\n", s.name, what,
			measure.Round(m.view.call.Quantile(0.99)), measure.Round(m.put.call.Quantile(0.99)))
	}
	return nil
}

// measurePhase puts it together from slices, with more garbage in between.
func (c config) measurePhase(u *subject, going bool) (*measured, error) {
	const most = 100 // slices
	all := new(measured)
	for i := 0; all.took < c.phase; i++ {
		if i == most {
			return nil, errors.New("there is never enough garbage")
		}
		if err := u.prepare(c.settle); err != nil {
			return nil, err
		}
		m, err := u.slice(going, c.phase-all.took)
		if err != nil {
			return nil, err
		}
		all.merge(m)
	}
	return all, nil
}
