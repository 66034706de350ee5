package server

import (
	"time"
	"unsafe"

	"github.com/crowfly/crowfly/segment/vfs"
)

// usedMemory is memory of mappings that was resident a moment ago, so that the
// kernel is not asked about a hot value with each request. The kernel does not take
// away at once what has just been used; if it does, or there is another file by
// now, a leader has to wait for a disk once.
type usedMemory [1 << 10]usedSlice

// usedSlice is a slice that was resident.
type usedSlice struct {
	from  uintptr
	size  int
	until time.Time
}

const usedFor = time.Second

// resident is [vfs.Resident], or was lately.
func (u *usedMemory) resident(p []byte, now time.Time) bool {
	from := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	s := &u[from>>9%uintptr(len(u))]
	if s.from == from && s.size >= len(p) && now.Before(s.until) {
		return true
	}
	if !vfs.Resident(p) {
		return false
	}
	*s = usedSlice{from, len(p), now.Add(usedFor)}
	return true
}
