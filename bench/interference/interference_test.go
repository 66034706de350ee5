package main

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The whole program runs, and compaction goes on in the phases in which it
// should. What it measures on so small a scale is no matter.
func TestProgram(t *testing.T) {
	c := config{
		dir: t.TempDir(), live: 8 << 20, phase: 300 * time.Millisecond, alternations: 2,
		readers: 2, writers: 2, part: 0.25, views: 1000,
		capacity: 100 * time.Millisecond, segment: 256 << 10,
	}
	list, err := c.measure(t.Output(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if len(s.paused) != c.alternations || len(s.going) != c.alternations || s.compacted == 0 {
			t.Errorf("%s: %d and %d phases, %d bytes compacted", s.name, len(s.paused), len(s.going), s.compacted)
		}
		for _, m := range append(s.paused, s.going...) {
			if m.took < c.phase || m.view.call.Total == 0 || m.put.call.Total == 0 {
				t.Errorf("%s: %d views and %d puts in %v", s.name, m.view.call.Total, m.put.call.Total, m.took)
			}
		}
	}
	table(t.Output(), list)
}

func TestFlags(t *testing.T) {
	var out strings.Builder
	if run([]string{"-readers", "0"}, &out) != 2 {
		t.Error(out.String())
	}
}

// A call that is due while the one before it still runs counts from when it was
// due. Method: a call that takes far longer than there is between two.
func TestQueueing(t *testing.T) {
	const call, calls = 5 * time.Millisecond, 20
	l := load{keys: 1}
	n := 0
	var stop atomic.Bool
	w := l.worker(func(uint64) error {
		time.Sleep(call)
		n++
		stop.Store(n == calls)
		return nil
	}, 10_000)
	w.run(1, &stop)
	if got := w.latencies.call.Most; got < call*(calls-2) {
		t.Errorf("the last of %d calls took %v", calls, got)
	}
}

// What is more than the target is said, for each kind.
func TestMissed(t *testing.T) {
	phase := func(view, put time.Duration) *measured {
		m := new(measured)
		m.view.call.Add(view)
		m.put.call.Add(put)
		return m
	}
	cases := []struct {
		going *measured
		want  int
	}{{phase(49, 49), 0}, {phase(50, 49), 1}, {phase(49, 50), 1}, {phase(60, 60), 2}}
	for _, c := range cases {
		s := series{paused: []*measured{phase(33, 33)}, going: []*measured{c.going}}
		if got := s.missed(); len(got) != c.want {
			t.Errorf("%q, want %d", got, c.want)
		}
	}
}
