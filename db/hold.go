package db

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
)

// errRevoked is about a snapshot that had to let go.
var errRevoked = fmt.Errorf("%w: too much of what it holds was removed since", ErrSnapshotExpired)

// snapshotHold is what a snapshot reads from, and what the slices that it gave
// out lie in.
type snapshotHold struct {
	ordered *index.Ordered // released once revoked or closed
	lent    []atomic.Bool  // by slot: an iteration gave out slices of the segment

	mu    lockorder.Mutex[lockorder.Hold]
	blobs map[string]segment.Payload // that gave out slices, by file name; nil once closed
	kept  []*segment.Segment         // of a revoked snapshot: those lent
}

func newSnapshotHold(o *index.Ordered) *snapshotHold {
	return &snapshotHold{
		ordered: o, lent: make([]atomic.Bool, o.Segments().Slots()), blobs: make(map[string]segment.Payload),
	}
}

// lend notes that slices of a segment of the snapshot are about to be given out,
// and reports whether they may be. It looks at the snapshot after the mark is set,
// and revoke at the marks after the snapshot is released, so one sees the other.
func (h *snapshotHold) lend(seg *segment.Segment) bool {
	if mark := &h.lent[seg.Slot()]; !mark.Load() {
		mark.Store(true)
	}
	return h.ordered.Segments() != nil
}

// keep holds a blob until letGo.
func (h *snapshotHold) keep(p segment.Payload) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.blobs[p.File.Name()]; !ok && h.blobs != nil {
		h.blobs[p.File.Name()] = p
	}
}

// revoke lets go of everything but the segments and blobs that slices were given
// out of. It reports false if that was done before.
func (h *snapshotHold) revoke() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	segs := h.ordered.Release()
	if segs == nil {
		return false
	}
	for seg := range segs.All() {
		if h.lent[seg.Slot()].Load() { // sabotage: lent-is-kept
			h.kept = append(h.kept, seg)
		}
	}
	return true
}

// letGo lets go of everything.
func (h *snapshotHold) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ordered.Release()
	h.kept, h.blobs = nil, nil
}

// reads reports whether the snapshot may still be asked for what is in a segment.
func (h *snapshotHold) reads(seg *segment.Segment) bool {
	segs := h.ordered.Segments()
	return segs != nil && segs.Has(seg)
}

func (h *snapshotHold) holds(seg *segment.Segment) bool {
	if h.reads(seg) {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.kept, seg)
}
