//go:build unix

package vfs

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// self opens the directory anew: a descriptor of its own has a position of its own.
// One that an os.Root opens looks at each file when it is read, which is slow.
func (d *Dir) self() (*os.File, error) {
	for {
		fd, err := unix.Openat(int(d.handle.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		runtime.KeepAlive(d.handle)
		if err == nil {
			return os.NewFile(uintptr(fd), d.path), nil
		}
		if err != unix.EINTR {
			return nil, err
		}
	}
}
