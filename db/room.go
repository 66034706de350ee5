package db

import (
	"fmt"
	"math"
	"syscall"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// What deletes leave behind only compaction can give back, and it has to copy
// what is live of a segment before the segment can go. On a disk that is nearly
// full it does so with blocks of its own, which are set aside before puts take
// the last ones: what is left of the others is for deletes. The blocks are
// enough for the largest segment, and the fuller the disk is the smaller are
// those that it gets, so that a small disk has not much set aside.
const (
	holdBelow       = 16 // segments that there must be room for if no blocks are held
	heldLeast       = 5  // reserves, see reserveSize, that are held at least
	scarceBelow     = 16 // reserves of free room from which on compaction gives back all it can
	segmentPart     = 8  // a segment gets one part in so many of the free room
	smallestSegment = 2  // but not less than so many reserves
)

// room is a file without contents whose blocks are for compaction.
type room struct {
	mu   lockorder.Mutex[lockorder.Room]
	file vfs.File // nil if there is none
	size int64    // bytes of it
	lent bool     // a compaction has the blocks
	over bool     // the store is being closed
}

var roomName = segment.TempName("room")

// hold sets blocks aside, if it can for so many bytes as are wanted, and returns
// for how many. It fails if that is less than least, and while they are lent.
func (r *room) hold(fsys vfs.FS, least, wanted int64) (size int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.over:
		return 0, ErrClosed
	case r.lent:
		return 0, fmt.Errorf("compaction is making room: %w", syscall.ENOSPC)
	}
	if r.file == nil {
		if r.file, err = vfs.CreateAnew(fsys, roomName); err != nil {
			return 0, err
		}
	}
	for size = max(wanted, least); r.size < size && size >= least; size /= 2 {
		if err = r.file.Reserve(0, size); err == nil {
			r.size = size
		}
	}
	if r.size < least {
		r.drop(fsys)
		return 0, err
	}
	return r.size, nil
}

// lend gives the blocks back to the disk for one compaction to take, and returns
// how many bytes that is.
func (r *room) lend(fsys vfs.FS) (size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if size = r.size; size > 0 {
		r.drop(fsys)
		r.lent = true
	}
	return size
}

// returned ends the use of what was lent.
func (r *room) returned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lent = false
}

// release gives the blocks back for good.
func (r *room) release(fsys vfs.FS) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over = true; r.file != nil {
		r.drop(fsys)
	}
}

func (r *room) drop(fsys vfs.FS) {
	r.file.Close()
	fsys.Remove(roomName) // what stays behind the next Open removes
	r.file, r.size = nil, 0
}

// free is how many bytes the disk has beyond so many reserves.
func (db *DB) free(beyond int64) int64 {
	n, err := db.fs.Free()
	if err != nil {
		return math.MaxInt64 // whoever needs too much will see
	}
	return max(n-beyond*db.reserveSize(), 0)
}

// scarce reports whether puts are refused for want of room, or soon will be.
func (db *DB) scarce() bool { return db.free(scarceBelow) == 0 }

// segmentSize is how long the next segment may get.
func (db *DB) segmentSize() int64 {
	return min(max(db.free(0)/segmentPart, smallestSegment*db.reserveSize()), db.opts.SegmentSize) // sabotage: small-segments
}

// hold has blocks held for the compaction of any one segment, or fewer if there
// are not so many, and returns for how many bytes.
func (db *DB) hold() (size int64, err error) {
	segs, largest := db.index.Segments(), int64(0)
	if segs == nil {
		return 0, ErrClosed
	}
	for seg := range segs.All() {
		largest = max(largest, min(int64(len(seg.Bytes())), db.opts.SegmentSize))
	}
	unit := db.reserveSize()
	return db.compactor.room.hold(db.fs, heldLeast*unit, largest+unit)
}

// mayPut returns an error if puts must not set so many bytes aside.
func (db *DB) mayPut(n int64) error {
	if db.free(0) >= holdBelow*db.opts.SegmentSize {
		return nil
	}
	_, err := db.hold() // sabotage: room-for-compaction
	return err
}

// roomToCopy is how many bytes a compaction that begins now may write. One
// reserve is left for what it writes beside them.
func (db *DB) roomToCopy() int64 {
	if db.scarce() {
		if size, err := db.hold(); err == nil {
			return size - db.reserveSize() + db.free(1)
		}
	}
	return db.free(1)
}

// lack is what the last compaction of the background lacked that came to nothing
// for want of room: it could not write so many bytes though there seemed to be
// room. Whatever needs as much has to wait, so that all else gets its turn and the
// same is not copied again and again: until there is more room, or for so many
// attempts to choose.
type lack struct {
	bytes, room int64
	attempts    int
}

// note takes the failure of a compaction, one of several in a row.
func (l *lack) note(failed *compaction, failures int) {
	*l = lack{bytes: failed.written, room: failed.room, attempts: 4 << min(failures, 4)}
}

// roomToTry is roomToCopy, or less if that failed.
func (db *DB) roomToTry() int64 {
	room, l := db.roomToCopy(), db.compactor.lack
	if l.attempts > 0 && room < l.room+db.reserveSize() {
		return min(room, max(l.bytes-1, 0))
	}
	return room
}

// borrow has the compaction write to the blocks that are held for it, if the disk
// is nearly full.
func (c *compaction) borrow() {
	c.room = c.db.free(1)
	if !c.db.scarce() { // sabotage: scarce-blocks
		return
	}
	if size := c.db.compactor.room.lend(c.db.fs); size > 0 {
		c.room += size - c.db.reserveSize()
		c.borrowed, c.lent = true, c.room
	}
}

// giveBack ends that.
func (c *compaction) giveBack() {
	if c.borrowed {
		c.borrowed = false
		c.db.compactor.room.returned()
	}
}

// may returns an error if the compaction must not set so many bytes aside.
func (c *compaction) may(n int64) error {
	switch {
	case !c.borrowed && c.db.free(1) >= n:
		return nil
	case c.borrowed && c.lent >= n:
		c.lent -= n
		return nil
	}
	return fmt.Errorf("no room for %d bytes more of what compaction copies: %w", n, syscall.ENOSPC)
}
