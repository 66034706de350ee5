package simdisk

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Handles keeps account of the open files of a disk. It is safe for concurrent
// use and does not keep its disk alive, nor anything else.
type Handles struct {
	mu        sync.Mutex
	open      map[*handle]struct{}
	forgotten []string
}

// handle is an open file, as far as its cleanup needs it.
type handle struct {
	owner  *Handles
	name   string
	mapped atomic.Bool
}

// Handles returns the account of this disk. A clone has one of its own.
func (d *Disk) Handles() *Handles {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openFiles()
}

// openFiles is Handles for a caller that holds mu.
func (d *Disk) openFiles() *Handles {
	if d.handles == nil {
		d.handles = &Handles{open: make(map[*handle]struct{})}
	}
	return d.handles
}

// Open returns the names of the files that were neither closed nor, so far,
// found unreachable by the collector.
func (h *Handles) Open() (list []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for o := range h.open {
		list = append(list, o.name)
	}
	slices.Sort(list)
	return list
}

// Forgotten returns the names of the files that the collector found, so far,
// unreachable and neither closed nor mapped. Only of a mapped file is it right
// not to be closed: readers may share it.
func (h *Handles) Forgotten() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.forgotten)
}

// newFile opens a file. The caller holds mu.
func (d *Disk) newFile(ino *inode, name string, writable bool) *file {
	h := &handle{owner: d.openFiles(), name: name}
	f := &file{disk: d, ino: ino, name: name, writable: writable, handle: h}
	h.owner.mu.Lock()
	h.owner.open[h] = struct{}{}
	h.owner.mu.Unlock()
	vfs.Own(f, (*handle).collected, h)
	return f
}

// closed ends the account of a file and reports whether it was open.
func (h *handle) closed() bool {
	h.owner.mu.Lock()
	defer h.owner.mu.Unlock()
	_, was := h.owner.open[h]
	delete(h.owner.open, h)
	return was
}

func (h *handle) collected() {
	if h.closed() && !h.mapped.Load() {
		h.owner.mu.Lock()
		h.owner.forgotten = append(h.owner.forgotten, h.name)
		h.owner.mu.Unlock()
	}
}
