//go:build !linux

package vfs

import (
	"os"
	"path"
)

// renameExclusive renames a file of d to a name in the directory at dir in d.
// It fails with fs.ErrExist if the new name is taken.
func (d *Dir) renameExclusive(from string, _ *os.File, dir, to string) error {
	return d.linkThenUnlink(from, path.Join(dir, to))
}
