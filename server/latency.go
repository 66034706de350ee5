package server

import (
	"sync/atomic"
	"time"
)

// latencyBounds are the ends of the buckets of a histogram. A small GET takes
// some ten microseconds, a PUT the time of a sync, a film minutes.
var latencyBounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, time.Minute,
}

// histogram counts how long requests took. It is safe for concurrent use.
type histogram struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64 // the last one has no end
	sum     atomic.Int64                          // nanoseconds
}

func (h *histogram) add(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}
