package simdisk

import (
	"io"
	"slices"
)

// inode is the contents of a file. The lock of its disk guards it.
type inode struct {
	durable []byte         // what a power cut is sure to leave
	cached  []byte         // what programs read; never shorter than durable
	pending []pendingWrite // since the last sync, in order
	lost    bool           // cached has bytes that are neither durable nor pending
	locked  bool

	reserved int64 // bytes that blocks were set aside for
}

// pendingWrite is a write that is not durable yet. It shares its bytes with cached.
type pendingWrite struct {
	off  int
	data []byte
}

func (w pendingWrite) end() int { return w.off + len(w.data) }

// unsynced reports whether a power cut may leave other bytes than programs read.
func (ino *inode) unsynced() bool {
	return len(ino.pending) > 0 || len(ino.durable) != len(ino.cached) || ino.lost
}

// takes is how many bytes of the disk the file takes.
func (ino *inode) takes() int64 { return max(int64(len(ino.cached)), ino.reserved) }

// read is io.ReaderAt for an off that is not negative.
func (ino *inode) read(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(ino.cached)) {
		n = copy(p, ino.cached[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// write puts the buffers at off, but no more than limit bytes of them, and
// returns how many it took.
func (ino *inode) write(bufs [][]byte, off, limit int) int {
	n := min(length(bufs), limit)
	if n == 0 {
		return 0
	}
	data := ino.room(off, n)
	left := data
	for _, b := range bufs {
		left = left[copy(left, b):]
	}
	ino.pending = append(ino.pending, pendingWrite{off, data})
	return n
}

// length of all buffers together.
func length(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b)
	}
	return n
}

// room makes cached reach to off+n and returns those bytes, which are shared
// with nobody yet. To append is cheap; to overwrite costs a copy.
func (ino *inode) room(off, n int) []byte {
	old := len(ino.cached)
	end := off + n
	if off < old {
		ino.cached = slices.Clone(ino.cached)
	}
	if end > old {
		ino.cached = append(ino.cached, make([]byte, end-old)...)
	}
	return ino.cached[off:end:end]
}

// sync makes what is pending durable. Bytes that an earlier failed sync lost
// stay lost.
func (ino *inode) sync() {
	if ino.lost {
		ino.durable = ino.written(len(ino.durable))
	} else {
		ino.durable = slices.Clip(ino.cached)
	}
	ino.pending = nil
}

// failSync loses what is pending: the kernel has marked the pages clean, so
// they read as before and no later sync writes them.
func (ino *inode) failSync() {
	ino.lost = ino.lost || len(ino.pending) > 0
	ino.pending = nil
}

// dropCache makes reads show the disk again. Pages that wait to be written
// stay in the cache, and so does the size.
func (ino *inode) dropCache() {
	if !ino.lost {
		return
	}
	ino.cached = ino.written(len(ino.cached))
	ino.lost = false
}

// written returns the durable bytes with all pending writes done, at least
// size long.
func (ino *inode) written(size int) []byte {
	for _, w := range ino.pending {
		size = max(size, w.end())
	}
	out := make([]byte, size)
	copy(out, ino.durable)
	for _, w := range ino.pending {
		copy(out[w.off:], w.data)
	}
	return out
}

// clone returns the same file for another disk.
func (ino *inode) clone() *inode {
	return &inode{
		durable: slices.Clip(ino.durable),
		cached:  slices.Clip(ino.cached),
		pending: slices.Clip(ino.pending),
		lost:    ino.lost,

		reserved: ino.reserved,
	}
}
