package main

import (
	"crypto/rand"
	"os"
	"path"
	"path/filepath"
	"time"
)

// writeOutput writes the file that somebody named on the command line. It
// replaces a regular file in one step, also behind a symbolic link; anything
// else, such as a device, it writes to.
func writeOutput(name string, value []byte, modTime time.Time) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	perm := os.FileMode(0o666)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() {
			return os.WriteFile(name, value, 0)
		}
		perm = info.Mode().Perm()
	}
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return replaceFile(dir, filepath.Base(name), perm, value, modTime)
}

// replaceFile writes a file below root in one step: a reader sees what was
// there before or all of the new, and after an error it is the former.
func replaceFile(root *os.Root, name string, perm os.FileMode, value []byte, modTime time.Time) error {
	temp := path.Join(path.Dir(name), ".crowfly-"+rand.Text())
	if err := createFile(root, temp, perm, value, modTime); err != nil {
		return err
	}
	err := root.Rename(temp, name)
	if err != nil {
		root.Remove(temp)
	}
	return err
}

// createFile writes a file below root that must not exist yet, and leaves none
// behind after an error.
func createFile(root *os.Root, name string, perm os.FileMode, value []byte, modTime time.Time) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
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
