package vfs

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// lockPatience is how long a writer waits for a lock that is taken. It covers
// the moment in which Locked itself holds one, and no real owner.
const (
	lockPatience = 50 * time.Millisecond
	lockPause    = 2 * time.Millisecond
)

// lockFile locks the file at path, creating it if need be.
func lockFile(path string) (unlock func() error, err error) {
	for start := time.Now(); ; time.Sleep(lockPause) {
		f, err := tryLock(path)
		if err == nil {
			return func() error { return unlockFile(f) }, nil
		}
		if !errors.Is(err, ErrLocked) || time.Since(start) > lockPatience {
			return nil, err
		}
	}
}

// tryLock asks once.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = setLock(f, true)
	if err == nil {
		err = sameFile(f, path)
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// sameFile makes sure that the locked file is still the one under its name:
// a lock on a removed file excludes nobody. It answers ErrLocked, as trying
// again is right.
func sameFile(f *os.File, path string) error {
	locked, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
		return ErrLocked
	}
	return err
}

// unlockFile releases the lock before it closes the file: a child process that
// was forked and has not called exec yet shares the lock with us.
func unlockFile(f *os.File) error {
	err := clearLock(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// probeLock reports whether the file at path is locked. It takes a shared lock
// for a moment, so that two probes don't see each other.
func probeLock(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = setLock(f, false)
	if err == nil {
		return false, unlockFile(f)
	}
	f.Close()
	if err == ErrLocked {
		return true, nil
	}
	return false, &os.PathError{Op: "lock", Path: path, Err: err}
}
