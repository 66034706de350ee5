package db

import (
	"runtime"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Prefetch brings in the record of a key, with the value if it has at most maxValue
// bytes and no more than 1 MiB. What reads it next finds it in memory, unless that is
// short.
//
// Reads touch memory that is mapped. If it has to come from disk the goroutine
// waits, and with it one of the GOMAXPROCS processors that all goroutines share.
// Prefetch waits in a system call, so others go on. Where there is no such call,
// which is everywhere but on Linux from 5.14 on, it only touches the header.
//
// A key that is not there, and a closed store, are no errors. A disk that can't be
// read is one, but nothing is verified.
func (db *DB) Prefetch(key []byte, maxValue int64) (err error) {
	hit := db.index.Glance(key)
	if hit.Segment == nil {
		return nil
	}
	defer runtime.KeepAlive(hit.Segment)
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	return withKey("prefetch", key, hit.Segment.Prefetch(hit.Offset, len(key), min(maxValue, segment.ChunkedAbove)))
}
