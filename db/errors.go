package db

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Errors that callers branch on, with errors.Is. The error returned says more:
// the key, or the file and the offset.
var (
	ErrNotFound error = notFound{}
	ErrClosed         = errors.New("store is closed") // or the Value or Snapshot
	ErrReadOnly       = errors.New("store is read-only")
	ErrNoSpace        = vfs.ErrNoSpace

	// ErrInvalid says that an argument or an option can't be obeyed, by the fault
	// of the caller and not of the store. Nothing was changed. The next three are
	// ErrInvalid too.
	ErrInvalid             = errors.New("invalid argument")
	ErrKeySize       error = invalid{fmt.Errorf("key must have 1 to %d bytes", segment.MaxKey)}
	ErrValueTooLarge error = invalid{errors.New("value is larger than the limit")}
	ErrBatchTooLarge error = invalid{fmt.Errorf("batch is larger than %d bytes or %d records", maxBatchBytes, maxBatchRecords)}

	ErrPrecondition    = errors.New("precondition failed")
	ErrSize            = errors.New("value is not as long as it was said to be")
	ErrSnapshotExpired = errors.New("snapshot has expired")
	ErrPinnedSpace     = errors.New("readers hold too much that was removed")

	// ErrRemoved says that the directory of the store was removed while it was
	// open. There are no more writes, since nothing could read them later;
	// reads go on.
	ErrRemoved = vfs.ErrRemoved

	// ErrNotResident says that a record may have to come from disk, see
	// DB.LendResident.
	ErrNotResident = index.ErrNotResident

	// ErrLocked says that another writer, in this process or another, has
	// the store open. On Linux the error names the process.
	ErrLocked = vfs.ErrLocked

	// ErrNewer says that the store needs a newer version of crowfly.
	ErrNewer = segment.ErrNewer
)

// errAborted stops writing after a panic while a group was committed.
var errAborted = errors.New("a commit was cut off by a panic")

// errFoldFirst says that a group has to wait for fold. Nothing was done.
var errFoldFirst = errors.New("segments are to be merged first")

// errPaused ends a compaction that had borrowed room, see room.
var errPaused = errors.New("compaction is paused")

// CorruptError reports damage: bytes once proven durable are not what was
// written. Get it with errors.As. Nothing on disk has been changed.
type CorruptError = segment.CorruptError

// FaultError reports that the disk could not read a page of a mapped file, by
// name and offset. Get it with errors.As.
type FaultError = vfs.FaultError

// notFound is ErrNotFound. It is fs.ErrNotExist too.
type notFound struct{}

func (notFound) Error() string        { return "key not found" }
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// closedHandle is ErrClosed of a handle, by its kind.
type closedHandle string

func (h closedHandle) Error() string        { return string(h) + " is closed" }
func (h closedHandle) Is(target error) bool { return target == ErrClosed }

// invalid is an error that is ErrInvalid.
type invalid struct{ error }

func (e invalid) Unwrap() error        { return e.error }
func (e invalid) Is(target error) bool { return target == ErrInvalid }

// tooLarge is ErrValueTooLarge with the size, -1 if it is unknown, and the limit.
func tooLarge(size, limit int64) error {
	if size < 0 {
		return fmt.Errorf("%w of %d bytes", ErrValueTooLarge, limit)
	}
	return fmt.Errorf("%w of %d bytes: it has %d", ErrValueTooLarge, limit, size)
}

// keyError is an error about one operation on one key.
type keyError struct {
	op  string
	key string
	err error
}

func (e *keyError) Unwrap() error { return e.err }

func (e *keyError) Error() string {
	const shown = 64
	if len(e.key) > shown {
		return fmt.Sprintf("%s %q... (%d bytes): %v", e.op, e.key[:shown], len(e.key), e.err)
	}
	return fmt.Sprintf("%s %q: %v", e.op, e.key, e.err)
}

// withKey adds the operation and its key to an error, unless it has them.
func withKey(op string, key []byte, err error) error {
	if _, has := err.(*keyError); has || err == nil {
		return err
	}
	return &keyError{op, string(key), err}
}

// writeError gives a full disk its own name, once.
func writeError(err error) error { return vfs.NameNoSpace(err) }

// lacksSpace reports whether puts fail and deletes may still do.
func lacksSpace(err error) bool { return isNoSpace(err) || errors.Is(err, ErrPinnedSpace) }

func isNoSpace(err error) bool { return vfs.IsNoSpace(err) }

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func isPathError(err error) bool {
	_, ok := errors.AsType[*fs.PathError](err)
	return ok
}
