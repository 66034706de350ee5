package vfs

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Whoever closes a file without a name last has its blocks freed, all at once:
// pages, extents and, on a file system that discards, a command to the disk that
// takes as long as writing several of them. Whoever waits for a sync then waits
// for that too. So a large file is made shorter a little at a time before it is
// closed, one file at a time, and the faster the more are waiting. RocksDB
// deletes its files in this way for the same reason.
//
// A file is only shortened if nobody can notice: it has no name, nobody has it
// open or mapped, and it was never lent to sendfile, which returns while pages of
// the file wait in the queue of a socket. To cut a page, or several that the
// kernel keeps as one, in two would fill a part of it with zeros first.
const (
	buryFrom  = 8 << 20              // smaller files are just closed
	buryStep  = 2 << 20              // as much as the kernel keeps as one, with pages of 4 KiB
	burySteps = 1 << 14              // at most: the steps of a very large file are longer
	buryPause = 8 * time.Millisecond // shared by all that wait
	buryRoom  = 8                    // on a disk without room for so many of them they are just closed

	aloneTries = 50
	alonePause = 20 * time.Millisecond
)

var burials struct {
	sync.Mutex // held by one at a time
	waiting    atomic.Int64
}

// bury closes what a [File] that nobody uses any more has left open.
func bury(h *handle) {
	switch f := h.Load(); {
	case f == nil:
	case !h.lent.Load() && mayShrink(f): // sabotage: shrink-unlent
		go shrink(f)
	default:
		f.Close()
	}
}

// mayShrink reports whether a file has no name, is large, and on a file system
// that is known to keep what this needs: others may not count links, or not see
// who else has the file mapped.
func mayShrink(f *os.File) bool {
	var info unix.Stat_t
	var system unix.Statfs_t
	err1, err2 := unix.Fstat(int(f.Fd()), &info), unix.Fstatfs(int(f.Fd()), &system)
	runtime.KeepAlive(f)
	if err1 != nil || err2 != nil || info.Nlink > 0 || info.Size < buryFrom {
		return false
	}
	switch uint32(system.Type) { // its width depends on the architecture
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return available(uint64(system.Blocks), uint64(system.Bavail), uint64(system.Bsize)) > buryRoom*info.Size
	}
	return false
}

// shrink gives the blocks of a file back and closes it. If somebody else has it
// open or mapped it is only closed.
func shrink(f *os.File) {
	own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	f.Close()
	if err != nil {
		return
	}
	defer own.Close()
	if info, err := own.Stat(); err == nil && isAlone(own) { // sabotage: shrink-alone
		shorten(own, info.Size())
	}
}

func shorten(f *os.File, size int64) {
	burials.waiting.Add(1)
	defer burials.waiting.Add(-1)
	burials.Lock()
	defer burials.Unlock()
	step := buryStep * (1 + size/(buryStep*burySteps))
	for end := (size - 1) / step * step; end > 0 && f.Truncate(end) == nil; end -= step {
		time.Sleep(buryPause / time.Duration(burials.waiting.Load()))
	}
}

// isAlone waits until nobody but this descriptor has the file open or mapped, in
// any process, and reports false if somebody goes on to. Without a name nobody
// can open it any more. The kernel grants a write lease under just that
// condition, see fcntl(2).
func isAlone(f *os.File) bool {
	for range aloneTries {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		if err != unix.EAGAIN {
			return err == nil
		}
		time.Sleep(alonePause)
	}
	return false
}
