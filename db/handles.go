package db

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	site   [4]uintptr
	holds  any
	closed atomic.Bool
	leaked atomic.Bool
}

type handles struct {
	mu   sync.Mutex
	open map[*handle]struct{}
}

// add registers a handle that is made for a caller of the package.
func (h *handles) add(kind string, key []byte, holds any) *handle {
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
	defer h.mu.Unlock()
	delete(h.open, n)
}

// list describes the open handles.
func (h *handles) list() (list []Handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range h.open {
		list = append(list, Handle{
			Kind: n.kind, Key: n.key, Age: time.Since(n.since),
			Site: n.where(), Leaked: n.leaked.Load(),
		})
	}
	return list
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
	oldest := list[0]
	for _, n := range list {
		if n.Age > oldest.Age {
			oldest = n
		}
	}
	return fmt.Errorf("%w: %d, the oldest a %s made %v ago by %s",
		ErrOpenHandles, len(list), oldest.Kind, oldest.Age.Round(time.Millisecond), oldest.Site)
}
