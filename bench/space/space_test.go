package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

// tiny is small enough for a test and has everything happen all the same.
func tiny(t *testing.T, stores ...string) config {
	return config{
		dir: t.TempDir(), live: 8 << 20, stores: stores, segment: 1 << 20,
		sample: 50 * time.Millisecond, watch: 300 * time.Millisecond, settle: 100 * time.Millisecond,
	}
}

// Every store runs the whole workload and has the right values at the end.
// The targets are no matter: there are bytes that a store may always take.
func TestStores(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			tiny(t, name).run(&out)
			if got := out.String(); !regexp.MustCompile(`(?m)^ *` + name + ` .* yes$`).MatchString(got) {
				t.Error(got)
			}
		})
	}
}

// wrong is a store that loses one key and keeps a deleted one.
type wrong struct {
	store
	lose, keep bool
}

func (s wrong) write(list []change) error {
	if deletes := list[0].value == nil; s.keep && deletes || s.lose && !deletes {
		list = list[1:]
	}
	return s.store.write(list)
}

// What a store has wrong is noticed.
func TestVerify(t *testing.T) {
	for _, lose := range []bool{true, false} {
		c := tiny(t, "crowfly")
		s, err := openCrowfly(c.dir, c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		w := newWorkload(c.live / 8)
		if err := w.write(wrong{s, lose, !lose}, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if w.verify(s) == nil {
			t.Error("not noticed")
		}
	}
}

// Each target counts for those it is for.
func TestMissed(t *testing.T) {
	at := func(ratios ...float64) (t trace) {
		for i, r := range ratios {
			t = append(t, sample{at: time.Duration(i) * time.Second, ratio: r})
		}
		return t
	}
	cases := []struct {
		r    result
		want int
	}{
		{result{store: "crowfly", idle: at(3, 1.3), after: at(1.2, 1.1)}, 0},
		{result{store: "crowfly", idle: at(1.2, 1.31), after: at(1.0, 1.0)}, 1},
		{result{store: "crowfly", idle: at(3, 1.31), after: at(1, 1.11)}, 2},
		{result{store: "held", idle: at(3, 1.4), after: at(3)}, 0},
		{result{store: "held", idle: at(3, 1.41), after: at(1)}, 1},
		{result{store: "held", idle: at(1), after: at(1), failed: errors.New("changed")}, 1},
		{result{store: "bbolt", idle: at(9), after: at(9)}, 0},
		{result{store: "bbolt", idle: at(1), after: at(1), checked: errors.New("lost")}, 1},
	}
	for _, c := range cases {
		if got := c.r.missed(); len(got) != c.want {
			t.Errorf("%+v: %q", c.r, got)
		}
	}
	if when, ok := at(3, 2, 1.3, 1.4).reached(1.3); !ok || when != 2*time.Second {
		t.Error(when, ok)
	}
}

// What the command line says counts.
func TestFlags(t *testing.T) {
	var out strings.Builder
	if run([]string{"-store", "crowfly,none"}, &out) != 2 || !strings.Contains(out.String(), `"none"`) {
		t.Error(out.String())
	}
}
