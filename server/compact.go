package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/crowfly/crowfly/db"
)

// CompactLine is a line of the answer to POST /-/compact. All but the last say
// how far it is, and the last one what came of it or why it failed: one of the
// three is there.
type CompactLine struct {
	*CompactProgress
	*Compacted
	Error string `json:"error,omitempty"`
}

// CompactProgress is how far a compaction is, in bytes.
type CompactProgress struct {
	Done    int64 `json:"done"` // of the segments to go through
	Total   int64 `json:"total"`
	Written int64 `json:"written"` // copied
}

// Compacted is what came of a compaction, in bytes.
type Compacted struct {
	Before int64 `json:"bytes_before"` // of all segments and blobs
	After  int64 `json:"bytes_after"`
	Live   int64 `json:"live_bytes"` // as in StoreStats
	Read   int64 `json:"bytes_read"`
	Copied int64 `json:"bytes_copied"`
}

// Compact gives back all space that a store can give back now, see
// db.DB.Compact, and says what came of it.
func Compact(ctx context.Context, store *db.DB, progress func(CompactProgress)) (Compacted, error) {
	before := store.Stats()
	err := store.Compact(ctx, func(p db.CompactProgress) { progress(CompactProgress(p)) })
	if err != nil {
		return Compacted{}, err
	}
	after := store.Stats()
	return Compacted{
		Before: totalBytes(before), After: totalBytes(after), Live: NewStoreStats(after).Live,
		Read:   after.Compaction.BytesRead - before.Compaction.BytesRead,
		Copied: after.Compaction.BytesWritten - before.Compaction.BytesWritten,
	}, nil
}

// progressEvery is how often a client is told how far a compaction is, at most.
const progressEvery = 200 * time.Millisecond

// foreign refuses what a page of another site has a browser do. What writes
// values needs no such check, since browsers ask before they send PUT or DELETE.
var foreign = http.NewCrossOriginProtection()

// compact answers POST /-/compact. The compaction ends with the request or the
// server; what it has done by then stays done.
func (x *exchange) compact() {
	if err := foreign.Check(x.r); err != nil {
		x.problem(http.StatusForbidden, "pages of other sites may not ask for this")
		return
	}
	if bad := refuseWrite(x.r); bad != nil {
		x.problem(bad.status, bad.detail)
		return
	}
	if !x.compacting.TryLock() {
		x.problem(http.StatusConflict, "a compaction that a client has asked for is under way")
		return
	}
	defer x.compacting.Unlock()
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()

	var at CompactProgress
	var told time.Time
	done, err := Compact(ctx, x.store, func(p CompactProgress) {
		at = p
		if time.Since(told) >= progressEvery {
			told = time.Now()
			if x.line(CompactLine{CompactProgress: &p}) != nil {
				cancel() // nobody is there any more
			}
		}
		if x.alive.Err() != nil {
			cancel()
		}
	})
	if err == nil {
		err = x.line(CompactLine{CompactProgress: &at})
	}
	x.endCompact(done, err)
}

// endCompact writes the last line, or the whole answer if there was none yet.
func (x *exchange) endCompact(done Compacted, err error) {
	switch {
	case err == nil:
		_ = x.line(CompactLine{Compacted: &done})
	case x.status == 0:
		x.fail(err)
	default:
		detail := x.failure(x.r.Method, err).detail
		_ = x.line(CompactLine{Error: detail})
	}
}

// line writes a line of an answer in JSON and sends it at once.
func (x *exchange) line(l CompactLine) error {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	if x.status == 0 {
		x.w.Header().Set("Content-Type", "application/x-ndjson")
		x.w.Header().Set("Cache-Control", "no-store")
		x.writeHeader(http.StatusOK)
	}
	_ = x.rc.SetWriteDeadline(x.pace.deadline(int64(len(text))))
	n, err := x.w.Write(append(text, '\n'))
	x.departed = made(int(x.departed.bytes) + n)
	if err != nil {
		return err
	}
	if err := x.rc.Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil // the client gets all lines at the end
}
