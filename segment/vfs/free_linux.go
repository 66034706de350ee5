package vfs

import (
	"math"
	"math/bits"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// freeBytes is what an unprivileged user may still write.
func freeBytes(dir *os.File) (int64, error) {
	var s unix.Statfs_t
	err := unix.Fstatfs(int(dir.Fd()), &s)
	runtime.KeepAlive(dir)
	if err != nil {
		return 0, err
	}
	return available(uint64(s.Blocks), uint64(s.Bavail), uint64(s.Bsize)), nil
}

// available is the free room in bytes of a file system with so many blocks, free
// blocks and bytes a block. One that does not tell how large it is, such as
// ramfs, tmpfs without a limit or a FUSE file system without statfs, says 0 of
// 0 blocks. It is not full: how much it takes is not known.
func available(blocks, free, size uint64) int64 {
	high, low := bits.Mul64(free, size)
	if blocks == 0 || size == 0 || high > 0 || low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low)
}
