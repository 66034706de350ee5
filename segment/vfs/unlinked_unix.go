//go:build unix

package vfs

import (
	"os"
	"syscall"
)

// isUnlinked reports whether an open directory was removed.
func isUnlinked(dir *os.File) bool {
	info, err := dir.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}
