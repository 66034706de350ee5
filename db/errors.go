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
	ErrNotFound        error = notFound{}
	ErrClosed                = errors.New("store is closed")
	ErrReadOnly              = errors.New("store is read-only")
	ErrNoSpace               = vfs.ErrNoSpace
	ErrKeySize               = fmt.Errorf("key must have 1 to %d bytes", segment.MaxKey)
	ErrValueTooLarge         = fmt.Errorf("value is larger than %d bytes", int64(MaxValue))
	ErrBatchTooLarge         = fmt.Errorf("batch is larger than %d bytes or %d records", maxBatchBytes, maxBatchRecords)
	ErrPrecondition          = errors.New("precondition failed")
	ErrSize                  = errors.New("value is not as long as it was said to be")
	ErrSnapshotExpired       = errors.New("snapshot has expired")
	ErrPinnedSpace           = errors.New("readers hold too much that was removed")

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

// withKey adds the key to an error about one operation.
func withKey(op string, key []byte, err error) error {
	if err == nil {
		return nil
	}
	const shown = 64
	if len(key) > shown {
		return fmt.Errorf("%s %q... (%d bytes): %w", op, key[:shown], len(key), err)
	}
	return fmt.Errorf("%s %q: %w", op, key, err)
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
