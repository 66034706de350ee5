package vfs

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/windows"
)

// setLock locks the first byte of the file without waiting. Such a lock
// belongs to the handle, so it also excludes a second open in this process.
func setLock(f *os.File, exclusive bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	runtime.KeepAlive(f)
	if err == windows.ERROR_LOCK_VIOLATION {
		return ErrLocked
	}
	return err
}

func clearLock(f *os.File) error {
	err := windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, new(windows.Overlapped))
	runtime.KeepAlive(f)
	return err
}

// cantLock: Windows locks no directories.
func cantLock(err error) bool { return !errors.Is(err, ErrLocked) }
