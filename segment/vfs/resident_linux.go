package vfs

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var pageSize = uintptr(os.Getpagesize())

// Resident reports whether a slice of a mapping is in memory as a whole, so that
// nobody who reads it, the kernel included, has to wait for a disk. It may be
// gone a moment later, and of a file that the process neither owns nor may write
// to the kernel always says so. Of more than 1 MiB only the first is looked at.
func Resident(p []byte) bool {
	const most = 1 << 20 >> 12 // pages are of 4 KiB or larger
	var pages [most + 1]byte
	if len(p) == 0 {
		return true
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	size := min(uintptr(len(p)), 1<<20)
	skew := from % pageSize
	// It reads page tables and not the memory, so it does not wait either.
	_, _, e := syscall.RawSyscall(unix.SYS_MINCORE, from-skew, size+skew, uintptr(unsafe.Pointer(&pages)))
	if e != 0 {
		return false
	}
	for _, state := range pages[:(size+skew+pageSize-1)/pageSize] {
		if state&1 == 0 {
			return false
		}
	}
	return true
}
