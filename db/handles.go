package db

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrOpenHandles is returned by Close if Values or Snapshots are still open.
// The store is closed all the same, and they stay valid.
var ErrOpenHandles = errors.New("handles still open")

// handle is what the store knows of an open Value or Snapshot. The registry
// refers to it and it refers to what the user's slices lie in, so that a
// handle dropped without Close is a leak that can be seen, not a slice into
// nothing.
type handle struct {
	kind   string
	since  time.Time
	holds  any
	closed atomic.Bool
}

type handles struct {
	mu   sync.Mutex
	open map[*handle]struct{}
}

func (h *handles) add(kind string, holds any) *handle {
	n := &handle{kind: kind, since: time.Now(), holds: holds}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(map[*handle]struct{})
	}
	h.open[n] = struct{}{}
	return n
}

func (h *handles) close(n *handle) {
	if n.closed.Swap(true) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, n)
}

// count returns the open handles by kind, and the age of the oldest.
func (h *handles) count() (values, snapshots int, oldest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range h.open {
		if n.kind == "value" {
			values++
		} else {
			snapshots++
		}
		oldest = max(oldest, time.Since(n.since))
	}
	return values, snapshots, oldest
}

// stillOpen is the error of Close.
func (h *handles) stillOpen() error {
	values, snapshots, oldest := h.count()
	if values+snapshots == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d values, %d snapshots, the oldest for %v", ErrOpenHandles, values, snapshots, oldest.Round(time.Millisecond))
}
