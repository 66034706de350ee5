package cli

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"
)

// writeOutput has the file written that somebody named on the command line. It
// replaces a regular file in one step, also behind a symbolic link; anything
// else, such as a device, it writes to.
func writeOutput(name string, modTime time.Time, write func(io.Writer) error) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	perm := os.FileMode(0o666)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() {
			return writeDevice(name, write)
		}
		perm = info.Mode().Perm()
	}
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return replaceFile(dir, filepath.Base(name), perm, modTime, write)
}

func writeDevice(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// replaceFile has a file below root written in one step: a reader sees what
// was there before or all of the new, and after an error it is the former.
func replaceFile(root *os.Root, name string, perm os.FileMode, modTime time.Time, write func(io.Writer) error) error {
	temp := path.Join(path.Dir(name), ".crowfly-"+rand.Text())
	if err := createFile(root, temp, perm, modTime, write); err != nil {
		return err
	}
	err := root.Rename(temp, name)
	if err != nil {
		root.Remove(temp)
	}
	return err
}

// createFile has a file below root written that must not exist yet, and leaves
// none behind after an error.
func createFile(root *os.Root, name string, perm os.FileMode, modTime time.Time, write func(io.Writer) error) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	err = write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && !modTime.IsZero() {
		err = root.Chtimes(name, modTime, modTime)
	}
	if err != nil {
		root.Remove(name)
	}
	return err
}
