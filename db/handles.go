package db

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// ErrOpenHandles is returned by Close if Values or Snapshots are still open.
// The store is closed all the same, and they stay valid.
var ErrOpenHandles = errors.New("handles still open")

const (
	kindValue    = "value"
	kindSnapshot = "snapshot"
)

// Handle is an open Value or Snapshot in Stats.
type Handle struct {
	Kind   string // value or snapshot
	Key    string // of a value
	Age    time.Duration
	Site   string // where it was made: function, file and line
	Leaked bool   // dropped without Close; its memory stays mapped
}

// handle is what the store knows of an open Value or Snapshot. The registry
// refers to it and it refers to what the user's slices lie in, so that a
// handle dropped without Close is a leak that can be seen, not a slice into
// nothing.
type handle struct {
	kind   string
	key    string
	since  time.Time
	site   [8]uintptr
	holds  holder
	closed atomic.Bool
	leaked atomic.Bool
}

// holder keeps what slices lie in reachable.
type holder interface {
	// holds reports whether a segment is among it.
	holds(*segment.Segment) bool
	// letGo ends that: a closed handle that is still reachable holds nothing.
	letGo()
}

type handles struct {
	mu   lockorder.Mutex[lockorder.Handles]
	open map[*handle]struct{}
}

// add registers a handle that is made for a caller of the package.
func (h *handles) add(kind string, key []byte, holds holder) *handle {
	n := &handle{kind: kind, key: string(key), since: time.Now(), holds: holds}
	runtime.Callers(3, n.site[:])
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(map[*handle]struct{})
	}
	h.open[n] = struct{}{}
	return n
}

// watch notices when the user's side of a handle is dropped.
func watch[T any](outer *T, n *handle) { vfs.Own(outer, (*handle).dropped, n) }

func (n *handle) dropped() { n.leaked.Store(!n.closed.Load()) }

func (h *handles) close(n *handle) {
	if n.closed.Swap(true) {
		return
	}
	h.mu.Lock()
	delete(h.open, n)
	h.mu.Unlock()
	n.holds.letGo()
}

// all returns the open handles, oldest first.
func (h *handles) all() []*handle {
	h.mu.Lock()
	list := slices.Collect(maps.Keys(h.open))
	h.mu.Unlock()
	slices.SortFunc(list, func(a, b *handle) int { return a.since.Compare(b.since) })
	return list
}

// list describes the open handles, oldest first.
func (h *handles) list() (list []Handle) {
	for _, n := range h.all() {
		list = append(list, n.describe())
	}
	return list
}

func (n *handle) describe() Handle {
	return Handle{
		Kind: n.kind, Key: n.key, Age: time.Since(n.since),
		Site: n.where(), Leaked: n.leaked.Load(),
	}
}

// mayRead reports whether a snapshot may still be asked for what is in a segment.
func (n *handle) mayRead(seg *segment.Segment) bool {
	hold, ok := n.holds.(*snapshotHold)
	return ok && hold.reads(seg)
}

// String names the handle, its age and who made it.
func (h Handle) String() string {
	name := h.Kind
	if h.Kind == kindValue {
		name = fmt.Sprintf("%s %.64q", h.Kind, h.Key)
	}
	return fmt.Sprintf("%s made %v ago by %s", name, h.Age.Round(time.Millisecond), h.Site)
}

// where is the first caller outside this package.
func (n *handle) where() string {
	frames := runtime.CallersFrames(n.site[:])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "github.com/crowfly/crowfly/db.(*") || !more {
			return fmt.Sprintf("%s %s:%d", f.Function, f.File, f.Line)
		}
	}
}

// stillOpen is the error of Close.
func (h *handles) stillOpen() error {
	list := h.list()
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d, the oldest a %v", ErrOpenHandles, len(list), list[0])
}
