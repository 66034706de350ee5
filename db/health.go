package db

import "fmt"

// Health tells what stands between a store and its use until it is opened again,
// or nil: ErrClosed, why it takes no more writes, such as a failed sync, and of a
// read-only store why it does not follow its writer any more. Reads go on in the
// last two cases. It does not wait for a write or a Refresh that is under way, and
// writes nothing.
func (db *DB) Health() error {
	if db.closed() {
		return ErrClosed
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
	return nil
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
