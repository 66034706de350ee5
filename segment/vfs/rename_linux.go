package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameExclusive renames in one step and fails with fs.ErrExist if the new
// name is taken.
func renameExclusive(from, to string) error {
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	}
	switch err {
	case nil:
		return nil
	case unix.EINVAL, unix.ENOSYS: // an old kernel, or a file system without it
		return linkThenUnlink(from, to)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
