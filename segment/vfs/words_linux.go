//go:build linux && !race

package vfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a huge page on the common architectures. Where it is
// another one the advice below comes a bit early or late, which is harmless.
const hugePage = 2 << 20

// offHeapWords maps a table, or returns nil if the system refuses; then the Go
// heap decides whether there is memory.
func offHeapWords(n int) *Words {
	size := n * 8
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil
	}
	if size >= hugePage {
		// Random access to a big table costs a TLB miss a word otherwise.
		// A kernel without huge pages says EINVAL; nothing depends on it.
		_ = unix.Madvise(unsafe.Slice((*byte)(p), size), unix.MADV_HUGEPAGE)
	}
	w := &Words{words: unsafe.Slice((*uint64)(p), n)}
	Own(w, unmapWords, region{addr: uintptr(p), size: size})
	return w
}

// unmapWords gives the table back at once. Unlike the bytes of a mapping no
// slice of it ever leaves the index, so there is nobody to protect.
func unmapWords(r region) {
	// It can only fail for a range that is not mapped, and then it is free.
	_ = unix.MunmapPtr(r.pointer(), uintptr(r.size))
}
