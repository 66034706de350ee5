package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// lockFile locks a file of the directory, creating it if need be, and the
// directory. The file is what everybody agrees on. The directory can't be replaced
// under a writer as the file can: whoever tidies that away must not let a second
// writer in.
func (d *Dir) lockFile(name string) (unlock func() error, err error) {
	for start := time.Now(); ; time.Sleep(lockPause) {
		held, err := d.tryLock(name)
		if err == nil {
			return held.release, nil
		}
		patience := lockPatience
		if errors.Is(err, errProbed) {
			patience = probePatience
		}
		if !errors.Is(err, ErrLocked) || time.Since(start) > patience {
			return nil, d.withHolder(err, name)
		}
	}
}

// withHolder says who has the lock, where the system tells.
func (d *Dir) withHolder(err error, name string) error {
	at, ok := errors.AsType[*os.PathError](err)
	if !ok || at.Err != ErrLocked {
		return err
	}
	var locked []fs.FileInfo
	if info, err := d.root.Stat(name); err == nil {
		locked = append(locked, info)
	}
	if info, err := d.handle.Stat(); err == nil {
		locked = append(locked, info)
	}
	who := lockHolder(locked...)
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
func (d *Dir) tryLock(name string) (*heldLock, error) {
	f, err := d.openRetrying(func() (*os.File, error) { return d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644) })
	if err != nil {
		return nil, d.fail(err, "open", name)
	}
	held := &heldLock{file: f}
	err = own(f)
	if err == nil {
		err = d.sameFile(f, name)
	}
	if err == nil {
		held.dir, err = d.lockDir(true)
	}
	if err != nil {
		f.Close()
		return nil, d.fail(err, "lock", name)
	}
	return held, nil
}

// lockDir locks the directory, through a descriptor that nothing else uses. Where the file system can't do that, which some
// over a network can't, it returns nil: the lock file has to suffice.
func (d *Dir) lockDir(exclusive bool) (*os.File, error) {
	dir, err := d.openRetrying(func() (*os.File, error) { return d.root.Open(".") })
	if err != nil {
		return nil, err
	}
	if exclusive {
		err = own(dir)
	} else {
		err = setLock(dir, false)
	}
	if err == nil {
		return dir, nil
	}
	dir.Close()
	if cantLock(err) {
		return nil, nil
	}
	return nil, err
}

// sameFile makes sure that the locked file is still the one under its name:
// a lock on a removed file excludes nobody. It answers ErrLocked, as trying
// again is right.
func (d *Dir) sameFile(f *os.File, name string) error {
	locked, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := d.root.Stat(name)
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

// probeLock reports whether a file of the directory or the directory is locked. It takes
// a shared lock for a moment, so that two probes don't see each other.
func (d *Dir) probeLock(name string) (bool, error) {
	locked, err := d.probeFile(name)
	if locked || err != nil {
		return locked, err
	}
	dir, err := d.lockDir(false)
	if err == ErrLocked {
		return true, nil
	}
	if dir != nil {
		err = unlockFile(dir)
	}
	return false, err
}

func (d *Dir) probeFile(name string) (bool, error) {
	f, err := d.openRetrying(func() (*os.File, error) { return d.root.Open(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, d.fail(err, "open", name)
	}
	err = setLock(f, false)
	if err == nil {
		return false, unlockFile(f)
	}
	f.Close()
	if err == ErrLocked {
		return true, nil
	}
	return false, d.fail(err, "lock", name)
}
