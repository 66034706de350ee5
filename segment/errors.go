package segment

import (
	"errors"
	"fmt"
)

// CorruptError says that bytes which were once proven durable are not what was
// written. It is the only error about damage. Nothing on disk has been changed.
type CorruptError struct {
	Path   string // file
	Offset int64  // first byte of the damaged structure
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: damaged at offset %d: %s", e.Path, e.Offset, e.Reason)
}

// ErrNewer says that a file needs a newer version of crowfly.
var ErrNewer = errors.New("written by a newer version of crowfly")

// ErrParts says that a blobref has several extents. They are reserved for values
// that are made of parts.
var ErrParts = errors.New("value in several blobs: not supported by this version")
