//go:build (linux || darwin || freebsd) && !race

package vfs

import (
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRetired is how many retired ranges are held back. Linux allows a process
// 65,530 mappings by default (vm.max_map_count), and running out kills the Go
// runtime, so the held-back ones may take no more than a small part of them.
const maxRetired = 4096

// region is a range of mapped addresses. These are numbers, not pointers: the
// collector must not meet a pointer into memory that was unmapped and has
// since become part of the Go heap.
type region struct {
	addr uintptr
	size int
}

// pointer is for system calls only. The detour over memory tells go vet that
// the address is not that of a Go object.
func (r region) pointer() unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&r.addr))
}

// mapFile maps [0, size) of f, which may be shorter, for reading.
func mapFile(f *os.File, size int64) (*Mapping, error) {
	if err := checkSize(size); err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, uintptr(size), unix.PROT_READ, unix.MAP_SHARED)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	m := &Mapping{bytes: unsafe.Slice((*byte)(p), size)}
	mapCount.add(len(m.bytes))
	Own(m, retire, region{addr: uintptr(p), size: len(m.bytes)})
	return m, nil
}

// retire replaces a mapping that nobody should use any more by addresses that
// fault, which also lets go of the file. Unmapped addresses would be given to
// the next mapping, and a stale slice would read another file's bytes.
func retire(r region) {
	const prot, flags = unix.PROT_NONE, unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_FIXED
	if _, err := unix.MmapPtr(-1, 0, r.pointer(), uintptr(r.size), prot, flags); err != nil {
		// Out of mappings or memory. The file's mapping is still there and
		// still counts as live: space is lost, but no reader is wrong.
		return
	}
	mapCount.drop(r.size)
	held.push(r)
}

// held are the retired ranges, oldest first.
var held retiredRanges

type retiredRanges struct {
	mu    sync.Mutex
	queue []region
}

// push holds a range back and gives the oldest ones beyond the limit back to
// the system.
func (h *retiredRanges) push(r region) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, r)
	mapCount.retired.Add(1)
	mapCount.retiredBytes.Add(int64(r.size))
	for len(h.queue) > maxRetired {
		oldest := h.queue[0]
		if err := unix.MunmapPtr(oldest.pointer(), uintptr(oldest.size)); err != nil {
			return // kept, and tried again with the next one
		}
		h.queue = h.queue[1:]
		mapCount.retired.Add(-1)
		mapCount.retiredBytes.Add(-int64(oldest.size))
	}
}
