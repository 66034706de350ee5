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
//
// It has room for 256 MiB, each block in a place of its own if they lie in a row.
type usedMemory [1 << 12]usedBlock

// usedBlock is which pages of a block of 16 were found resident within a second
// of the clock.
type usedBlock struct {
	number uint32 // its address over 64 KiB: mappings lie within 48 bits
	pages  uint16
	second uint16
}

const usedPage = 12 // bits: 4 KiB, or a part of a larger page

// resident is [vfs.Resident], or was lately.
func (u *usedMemory) resident(p []byte, now time.Time) bool {
	if len(p) == 0 {
		return true
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	first, last := from>>usedPage, (from+uintptr(len(p))-1)>>usedPage
	second := uint16(now.Unix())
	known := true
	for page := first; page <= last && known; page = (page | 15) + 1 {
		known = u.block(page).has(usedIn(page, last, second))
	}
	if known {
		return true
	}
	if !vfs.Resident(p) {
		return false
	}
	for page := first; page <= last; page = (page | 15) + 1 {
		u.block(page).add(usedIn(page, last, second))
	}
	return true
}

// block is where the block of a page has its place.
func (u *usedMemory) block(page uintptr) *usedBlock { return &u[page>>4%uintptr(len(u))] }

// usedIn is the pages from one up to another, as far as they lie in one block.
func usedIn(page, last uintptr, second uint16) usedBlock {
	to := min(last, page|15)
	return usedBlock{uint32(page >> 4), uint16(2<<(to&15) - 1<<(page&15)), second}
}

func (b *usedBlock) has(part usedBlock) bool {
	return b.number == part.number && b.second == part.second && b.pages&part.pages == part.pages
}

func (b *usedBlock) add(part usedBlock) {
	if b.number == part.number && b.second == part.second {
		part.pages |= b.pages
	}
	*b = part
}
