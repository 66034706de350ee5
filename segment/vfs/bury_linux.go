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
const (
	buryFrom  = 8 << 20 // smaller files are just closed
	buryStep  = 1 << 20
	burySteps = 1 << 14              // at most: the steps of a very large file are longer
	buryPause = 4 * time.Millisecond // shared by all that wait

	aloneTries = 50
	alonePause = 20 * time.Millisecond
)

var burials struct {
	sync.Mutex // held by one at a time
	waiting    atomic.Int64
}

// bury closes what a [File] that nobody uses any more has left open.
func bury(handle *atomic.Pointer[os.File]) {
	switch f := handle.Load(); {
	case f == nil:
	case isUnnamed(f, buryFrom):
		go shrink(f)
	default:
		f.Close()
	}
}

// isUnnamed reports whether a file has no name and at least so many bytes.
func isUnnamed(f *os.File, size int64) bool {
	var info unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &info)
	runtime.KeepAlive(f)
	return err == nil && info.Nlink == 0 && info.Size >= size
}

// shrink gives the blocks of a file back and closes it. A process that has it
// open or mapped would see that, so then it is only closed.
func shrink(f *os.File) {
	burials.waiting.Add(1)
	defer burials.waiting.Add(-1)
	burials.Lock()
	defer burials.Unlock()
	own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	f.Close()
	if err != nil {
		return
	}
	defer own.Close()
	if info, err := own.Stat(); err == nil && isAlone(own) {
		step := max(buryStep, info.Size()/burySteps)
		for end := info.Size() - step; end > 0 && own.Truncate(end) == nil; end -= step {
			time.Sleep(buryPause / time.Duration(burials.waiting.Load()))
		}
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
