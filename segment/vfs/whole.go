package vfs

import (
	"errors"
	"io/fs"
)

// maxReadFile bounds what ReadFile returns: far above a manifest with every slot
// taken.
const maxReadFile = 64 << 20

// ReadFile returns the contents of a small file, up to 64 MiB.
func ReadFile(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, maxReadFile))
	n, err := f.ReadAt(b, 0)
	if n == len(b) {
		return b, nil
	}
	return nil, err
}

// CreateAnew creates a file under a temporary name. If an earlier run left a file
// of that name, it is removed.
func CreateAnew(fsys FS, name string) (File, error) {
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err = fsys.Remove(name); err == nil {
			f, err = fsys.Create(name)
		}
	}
	return f, err
}
