package simdisk

import (
	"slices"
	"sync"
	"time"
)

// clock stands still until it is advanced.
type clock struct {
	mu     sync.Mutex
	now    time.Duration
	timers []*timer // by due time, then by age
}

type timer struct {
	due time.Duration
	f   func()
}

func (c *clock) afterFunc(delay time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{due: c.now + max(delay, 0), f: f}
	i := slices.IndexFunc(c.timers, func(o *timer) bool { return o.due > t.due })
	if i < 0 {
		i = len(c.timers)
	}
	c.timers = slices.Insert(c.timers, i, t)
	return func() bool { return c.stop(t) }
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Unix(0, int64(c.now))
}

func (c *clock) stop(t *timer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.timers, t)
	if i >= 0 {
		c.timers = slices.Delete(c.timers, i, i+1)
	}
	return i >= 0
}

func (c *clock) advance(delay time.Duration) {
	c.mu.Lock()
	until := c.now + delay
	c.mu.Unlock()
	for f := c.next(until); f != nil; f = c.next(until) {
		f()
	}
}

// next takes the first function due by until and sets the clock to its time;
// without one it sets the clock to until.
func (c *clock) next(until time.Duration) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 || c.timers[0].due > until {
		c.now = max(c.now, until)
		return nil
	}
	t := c.timers[0]
	c.timers = slices.Delete(c.timers, 0, 1)
	c.now = max(c.now, t.due)
	return t.f
}
