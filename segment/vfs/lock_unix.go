//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package vfs

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// setLock takes an exclusive or shared flock without waiting. Unlike the locks
// of fcntl, a flock also excludes a second open in the same process and
// survives somebody closing another descriptor of the file. The two kinds
// don't see each other, so this one is part of the format.
func setLock(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH | unix.LOCK_NB
	if exclusive {
		how = unix.LOCK_EX | unix.LOCK_NB // sabotage: exclusive-lock
	}
	err := flock(f, how)
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

// cantLock reports whether a file system has no locks for a kind of file.
func cantLock(err error) bool {
	return err == unix.EBADF || err == unix.EINVAL || err == unix.ENOTSUP || err == unix.ENOSYS
}

func clearLock(f *os.File) error { return flock(f, unix.LOCK_UN) }

func flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how)
	for err == unix.EINTR {
		err = unix.Flock(int(f.Fd()), how)
	}
	runtime.KeepAlive(f)
	return err
}
