//go:build (linux || darwin || freebsd) && !race

package vfs

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// systemMaps is how many mappings a process may have.
func systemMaps() int {
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	n, parseErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || parseErr != nil {
		return 65530 // the default of Linux
	}
	return n
}

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

// mapFile maps [0, size) of f, which may be shorter, for reading. As long as the file
// is mapped count is one more.
func mapFile(f *os.File, size int64, count *atomic.Int64) (*Mapping, error) {
	if err := checkSize(size); err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	if err := held.makeRoom(size); err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, uintptr(size), unix.PROT_READ, unix.MAP_SHARED)
	if err == unix.ENOMEM && held.giveAllBack() {
		p, err = unix.MmapPtr(int(f.Fd()), 0, nil, uintptr(size), unix.PROT_READ, unix.MAP_SHARED)
	}
	runtime.KeepAlive(f)
	if err != nil {
		return nil, &os.PathError{Op: "mmap", Path: f.Name(), Err: err}
	}
	m := &Mapping{bytes: unsafe.Slice((*byte)(p), size), path: f.Name(), moved: new(atomic.Int64)}
	mapCount.add(len(m.bytes))
	r := region{addr: uintptr(p), size: len(m.bytes)}
	mapped.add(r.addr, area{r.size, m.path})
	count.Add(1)
	Own(m, retire, retirement{r, m.moved, count})
	return m, nil
}

// retirement is what the cleanup of a Mapping needs.
type retirement struct {
	region
	moved *atomic.Int64
	count *atomic.Int64
}

// retire replaces a mapping that nobody should use any more by addresses that
// fault, which also lets go of the file. Unmapped addresses would be given to
// the next mapping, and a stale slice would read another file's bytes.
func retire(r retirement) {
	mapped.remove(r.addr) // a fault from here on is a bug of whoever kept a slice
	const prot, flags = unix.PROT_NONE, unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_FIXED
	if _, err := unix.MmapPtr(-1, 0, r.pointer(), uintptr(r.size), prot, flags); err != nil { // sabotage: keep-addresses
		// Out of mappings or memory. The file's mapping is still there and
		// still counts as live: space is lost, but no reader is wrong.
		return
	}
	r.count.Add(-1)
	mapCount.drop(r.size, r.moved)
	held.push(r.region)
}

// held are the retired ranges, oldest first. Together with the live mappings
// they may be as many as mapLimit, and take mapBytes.
var held retiredRanges

type retiredRanges struct {
	mu    sync.Mutex
	queue []region
}

// push holds a range back, if need be in place of the oldest one.
func (h *retiredRanges) push(r region) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, r)
	mapCount.retired.Add(1)
	mapCount.retiredBytes.Add(int64(r.size))
	h.giveBack(mapLimit(), mapBytes)
}

// makeRoom makes room for one more mapping, or fails with ErrNoMaps.
func (h *retiredRanges) makeRoom(size int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.giveBack(mapLimit()-1, mapBytes-size) {
		return nil
	}
	if mapCount.liveBytes.Load() > mapBytes-size {
		return outOfBytes(size)
	}
	return ErrNoMaps
}

// giveAllBack unmaps all ranges and reports whether there was one.
func (h *retiredRanges) giveAllBack() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := len(h.queue)
	h.giveBack(0, 0)
	return len(h.queue) < before
}

// giveBack unmaps the oldest ranges until there are no more than most mappings in all,
// and they take no more than bytes, and reports whether that can be.
func (h *retiredRanges) giveBack(most int, bytes int64) bool {
	for int(mapCount.live.Load())+len(h.queue) > most || mapCount.liveBytes.Load()+mapCount.retiredBytes.Load() > bytes {
		if len(h.queue) == 0 {
			return false
		}
		oldest := h.queue[0]
		if err := unix.MunmapPtr(oldest.pointer(), uintptr(oldest.size)); err != nil {
			return false // kept, and tried again with the next one
		}
		h.queue = h.queue[1:]
		mapCount.retired.Add(-1)
		mapCount.retiredBytes.Add(-int64(oldest.size))
	}
	return true
}
