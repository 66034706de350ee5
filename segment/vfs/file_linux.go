package vfs

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxVec is IOV_MAX: one pwritev takes no more buffers than this.
const maxVec = 1024

// largeFile lets a process of 32 bits open files above 2 GiB. Package os does so
// by itself for a path, but not within an os.Root.
const largeFile = unix.O_LARGEFILE

// WriteVec implements [File] with one pwritev.
func (f *file) WriteVec(bufs [][]byte, off int64) (int, error) {
	var n int
	err := f.call("pwritev", func(fd int) (err error) {
		n, err = unix.Pwritev(fd, bufs[:min(len(bufs), maxVec)], off)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Datasync implements [File].
func (f *file) Datasync() error {
	// A call that was interrupted has not failed; any other error is final.
	return f.call("fdatasync", unix.Fdatasync)
}

// Writeback implements [File].
func (f *file) Writeback(off, n int64) error {
	return f.call("sync_file_range", func(fd int) error {
		err := unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
		if err == unix.ENOSYS {
			return nil
		}
		return err
	})
}

// Reserve implements [File].
func (f *file) Reserve(off, n int64) error {
	return f.call("fallocate", func(fd int) error {
		err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
			return nil
		}
		return err
	})
}

// Trim implements [File]. Truncating to the size a file has frees the blocks
// beyond its end and touches nothing below. The size can't change in between:
// writing belongs to one goroutine.
func (f *file) Trim() error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	return f.call("ftruncate", func(fd int) error { return unix.Ftruncate(fd, size) }) // sabotage: trim-to-size
}

// noCow is FS_NOCOW_FL: the file is written in place.
const noCow = 0x00800000

// copiesOnWrite reports whether the file system writes every block to a new
// place.
func copiesOnWrite(dir *os.File) bool {
	var info unix.Statfs_t
	err := unix.Fstatfs(int(dir.Fd()), &info)
	runtime.KeepAlive(dir)
	return err == nil && uint32(info.Type) == unix.BTRFS_SUPER_MAGIC
}

// writeInPlace makes btrfs write a new file in place. Else an append to a block
// that is half full needs another block, which Reserve can't set aside, and on a
// full disk there is none. It also gives up the checksums of the file system;
// records have their own. A failure costs nothing but this.
func writeInPlace(f *os.File) {
	fd := int(f.Fd())
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|noCow)
	}
	runtime.KeepAlive(f)
}

// call runs a system call on the descriptor until it is not interrupted.
func (f *file) call(op string, do func(fd int) error) error {
	h, err := f.use(op)
	if err != nil {
		return err
	}
	fd := int(h.Fd())
	err = do(fd)
	for err == unix.EINTR {
		err = do(fd)
	}
	runtime.KeepAlive(h) // else the collector may close fd during the call
	if err != nil {
		return &os.PathError{Op: op, Path: f.path, Err: err}
	}
	return nil
}
