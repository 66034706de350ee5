package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// lockPatience is how long a writer waits for a lock that another one has, and
// probePatience for one that only those have who ask Locked: each for a moment,
// which is longer on a busy machine.
const (
	lockPatience  = 50 * time.Millisecond
	probePatience = 10 * time.Second
	lockPause     = 2 * time.Millisecond
)

// errProbed is ErrLocked while nobody owns the lock.
var errProbed = fmt.Errorf("%w, for a moment", ErrLocked)

// lockFile locks the file at path, creating it if need be, and the directory it
// is in. The file is what everybody agrees on. The directory can't be replaced
// under a writer as the file can: whoever tidies that away must not let a second
// writer in.
func lockFile(path string) (unlock func() error, err error) {
	for start := time.Now(); ; time.Sleep(lockPause) {
		held, err := tryLock(path)
		if err == nil {
			return held.release, nil
		}
		patience := lockPatience
		if errors.Is(err, errProbed) {
			patience = probePatience
		}
		if !errors.Is(err, ErrLocked) || time.Since(start) > patience {
			return nil, withHolder(err, path)
		}
	}
}

// withHolder says who has the lock, where the system tells.
func withHolder(err error, path string) error {
	at, ok := errors.AsType[*os.PathError](err)
	if !ok || at.Err != ErrLocked {
		return err
	}
	who := lockHolder(path, filepath.Dir(path))
	if who == "" {
		return err
	}
	return &os.PathError{Op: at.Op, Path: at.Path, Err: fmt.Errorf("%w: %s", ErrLocked, who)}
}

// own takes the exclusive lock. A shared one can be had beside other shared ones
// only, so it tells what is in the way.
func own(f *os.File) error {
	err := setLock(f, true)
	if err == ErrLocked && setLock(f, false) == nil {
		return errors.Join(errProbed, clearLock(f))
	}
	return err
}

// heldLock is a file that is locked and the directory it is in, nil where
// directories can't be locked.
type heldLock struct{ file, dir *os.File }

// release lets the directory go first, so that whoever gets the file gets both.
func (l *heldLock) release() error {
	var err error
	if l.dir != nil {
		err = unlockFile(l.dir)
	}
	return errors.Join(err, unlockFile(l.file))
}

// tryLock asks once.
func tryLock(path string) (*heldLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	held := &heldLock{file: f}
	err = own(f)
	if err == nil {
		err = sameFile(f, path)
	}
	if err == nil {
		held.dir, err = lockDir(filepath.Dir(path), true)
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return held, nil
}

// lockDir locks a directory. Where the file system can't do that, which some
// over a network can't, it returns nil: the lock file has to suffice.
func lockDir(path string, exclusive bool) (*os.File, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if exclusive {
		err = own(d)
	} else {
		err = setLock(d, false)
	}
	if err == nil {
		return d, nil
	}
	d.Close()
	if cantLock(err) {
		return nil, nil
	}
	return nil, err
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

// probeLock reports whether the file at path or its directory is locked. It takes
// a shared lock for a moment, so that two probes don't see each other.
func probeLock(path string) (bool, error) {
	locked, err := probeFile(path)
	if locked || err != nil {
		return locked, err
	}
	d, err := lockDir(filepath.Dir(path), false)
	if err == ErrLocked {
		return true, nil
	}
	if d != nil {
		err = unlockFile(d)
	}
	return false, err
}

func probeFile(path string) (bool, error) {
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
