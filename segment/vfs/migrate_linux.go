//go:build !race

package vfs

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// migrateStep is how many bytes are copied or moved in one system call. While
// one runs, other goroutines that fault anywhere wait.
const migrateStep = 4 << 20

// moveToMemory makes a copy elsewhere and has the kernel move its pages over
// the file's. If that fails half-way some addresses show the file and some the
// copy, which is the same; but the kernel may have removed the file's pages
// already, and where it did reading faults from then on.
func (m *Mapping) moveToMemory(n int64) error {
	page := int64(os.Getpagesize())
	end := (n + page - 1) &^ (page - 1)
	from, err := m.copyOut(n, end)
	if err != nil {
		return fmt.Errorf("move %s to memory: %w", m.path, err)
	}
	to := region{addr: uintptr(unsafe.Pointer(unsafe.SliceData(m.bytes))), size: len(m.bytes)}
	for at := int64(0); at < end && err == nil; at += migrateStep {
		n := min(migrateStep, end-at)
		err = movePages(from.part(at), to.part(at), n)
		if err != nil { // what was moved away may belong to somebody else by now
			occupy(region{addr: to.part(at).addr, size: int(n)})
			_ = unix.MunmapPtr(from.part(at).pointer(), uintptr(from.part(at).size)) // only a range that is not there could fail
		}
	}
	if rest := to.part(end); err == nil && rest.size > 0 {
		const flags = unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_FIXED
		_, err = unix.MmapPtr(-1, 0, rest.pointer(), uintptr(rest.size), unix.PROT_NONE, flags)
	}
	if err != nil {
		return fmt.Errorf("move %s to memory: %w", m.path, err)
	}
	return nil
}

// part is the region from an offset on.
func (r region) part(at int64) region {
	return region{addr: r.addr + uintptr(at), size: max(r.size-int(at), 0)}
}

// movePages moves n bytes. Whoever touches them waits in the kernel until they
// are in their place.
func movePages(from, to region, n int64) error {
	_, err := unix.MremapPtr(from.pointer(), uintptr(n), to.pointer(), uintptr(n), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	return err
}

// occupy makes a range inaccessible if nothing is mapped in it, so that nothing
// else can be. What is mapped stays.
func occupy(r region) {
	const flags = unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_FIXED_NOREPLACE
	p, err := unix.MmapPtr(-1, 0, r.pointer(), uintptr(r.size), unix.PROT_NONE, flags)
	if err == nil && uintptr(p) != r.addr { // before Linux 4.17 the address is only a wish
		_ = unix.MunmapPtr(p, uintptr(r.size))
	}
}

// copyOut returns a read-only copy of the first n bytes in a range of size
// bytes, whole pages.
func (m *Mapping) copyOut(n, size int64) (region, error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANON
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), prot, flags)
	if err != nil {
		return region{}, err
	}
	memory := unsafe.Slice((*byte)(p), size) // sabotage: migrate-all
	for at := int64(0); at < n && err == nil; at += migrateStep {
		err = m.copyPart(memory[at:], at, min(migrateStep, n-at))
	}
	if err == nil {
		err = unix.Mprotect(memory, unix.PROT_READ)
	}
	if err != nil {
		_ = unix.MunmapPtr(p, uintptr(size))
		return region{}, err
	}
	return region{addr: uintptr(p), size: int(size)}, nil
}

func (m *Mapping) copyPart(to []byte, from, n int64) (err error) {
	if err := m.populate(from, n); err != nil {
		return err
	}
	defer EndGuard(BeginGuard(), &err)
	copy(to, m.bytes[from:from+n])
	return nil
}

// populate has the kernel read pages in, with an error instead of a fault.
func (m *Mapping) populate(from, n int64) error {
	start := from &^ int64(os.Getpagesize()-1)
	switch err := unix.Madvise(m.bytes[start:from+n], unix.MADV_POPULATE_READ); err {
	case unix.EFAULT, unix.EIO, unix.EHWPOISON:
		return &FaultError{m.path, start}
	default:
		// Before Linux 5.14 there is no such advice. Then touching the pages
		// tells.
		return nil
	}
}
