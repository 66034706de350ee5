package db

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Health tells what stands between a store and its use, or nil: ErrClosed;
// ErrRemoved if the directory was removed; why the store takes no more writes
// until it is opened again, such as a failed sync; how the last write failed, if
// that was less than a minute ago and no write has succeeded since; and why a
// read-only store does not follow its writer any more. Reads go on in all cases
// but the first. A write that fails for want of space, or for what its caller
// asked, does not count.
//
// Health does not wait for a write or a Refresh in progress, and writes nothing.
func (db *DB) Health() error {
	if db.closed() {
		return ErrClosed
	}
	if err := db.fs.Exists(); err != nil {
		return err
	}
	if db.opts.ReadOnly {
		if ended := db.follow.ended.Load(); ended != nil {
			return *ended
		}
		return nil
	}
	if cause := db.stopped(); cause != nil {
		return fmt.Errorf("writing has stopped, reopen the store: %w", cause)
	}
	return db.lastWrite.health(db.fs.Now())
}

// stopped is why there are no more writes in this run. It is as good as not
// known while somebody writes.
func (db *DB) stopped() error {
	if known := db.cause.Load(); known != nil {
		return *known
	}
	if !db.write.TryLock() {
		return nil
	}
	defer db.write.Unlock()
	cause := db.writer.poison
	if cause != nil {
		db.cause.Store(&cause) // from now on known, however many write in vain
	}
	return cause
}

// lastWrite remembers that the last write failed, for Health. Only a write can
// show that writes succeed again, and where Health decides who gets requests
// there may be none. So a failure is forgotten after failureLasts.
type lastWrite struct{ failed atomic.Pointer[failedWrite] }

type failedWrite struct {
	err error
	at  time.Time
}

const failureLasts = time.Minute

// note takes the outcome of a group of commits.
func (l *lastWrite) note(group []*commit, err error, now func() time.Time) {
	switch {
	case err != nil:
		l.fail(err, now())
	case l.failed.Load() != nil && slices.ContainsFunc(group, func(c *commit) bool { return c.published }):
		l.failed.Store(nil)
	}
}

// fail takes the error of the store that made a write fail.
func (l *lastWrite) fail(err error, now time.Time) {
	if !lacksSpace(err) {
		l.failed.Store(&failedWrite{err, now})
	}
}

func (l *lastWrite) health(now time.Time) error {
	if last := l.failed.Load(); last != nil && now.Sub(last.at) < failureLasts {
		return fmt.Errorf("the last write failed: %w", last.err)
	}
	return nil
}
