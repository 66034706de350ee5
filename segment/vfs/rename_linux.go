package vfs

import (
	"os"
	"path"
	"runtime"

	"golang.org/x/sys/unix"
)

// renameExclusive renames a file of d in one step to a name in the directory
// that target is open for, which lies at dir in d. It fails with fs.ErrExist if
// the new name is taken.
func (d *Dir) renameExclusive(from string, target *os.File, dir, to string) error {
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Renameat2(int(d.handle.Fd()), from, int(target.Fd()), to, unix.RENAME_NOREPLACE)
	}
	runtime.KeepAlive(target)
	switch err {
	case unix.EINVAL, unix.ENOSYS: // an old kernel, or a file system without it
		return d.linkThenUnlink(from, path.Join(dir, to))
	}
	return err
}
