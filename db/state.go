package db

import (
	"slices"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
)

// state is the set of segments that a reader works with. It is immutable and
// swapped whole. A reader loads the pointer before it asks the index: the
// state keeps its segments alive, and with them their slots, so that a Ref
// found later names the right segment or none at all.
type state struct {
	segs index.Segments // by slot
}

// with returns a state that has the segment too.
func (s *state) with(seg *segment.Segment) *state {
	segs := slices.Clone(s.segs)
	if n := seg.Slot() + 1; n > len(segs) {
		segs = append(segs, make(index.Segments, n-len(segs))...)
	}
	segs[seg.Slot()] = seg
	return &state{segs}
}

// without returns a state that lacks the segments with the given IDs.
func (s *state) without(ids []segment.ID) *state {
	segs := slices.Clone(s.segs)
	for i, seg := range segs {
		if seg != nil && slices.Contains(ids, seg.ID()) {
			segs[i] = nil
		}
	}
	return &state{segs}
}

// find returns the segment with an ID, or nil.
func (s *state) find(id segment.ID) *segment.Segment {
	for _, seg := range s.segs {
		if seg != nil && seg.ID() == id {
			return seg
		}
	}
	return nil
}

// has reports whether a segment is in the state.
func (s *state) has(seg *segment.Segment) bool {
	return seg.Slot() < len(s.segs) && s.segs[seg.Slot()] == seg
}

// holdsBlob reports whether a segment of the state holds a blob. A nil state
// has no segments.
func (s *state) holdsBlob(b *segment.Blob) bool {
	return s != nil && slices.ContainsFunc(s.segs, func(seg *segment.Segment) bool {
		return seg != nil && seg.Blob(b.ID()) != nil
	})
}

// attach gives a segment a slot and lets readers see it. It comes before the
// first index entry that names the segment.
func (db *DB) attach(seg *segment.Segment) error {
	if err := db.collecting(func() error { return db.index.Attach(seg) }); err != nil {
		return err
	}
	db.changeState(func(s *state) *state { return s.with(seg) })
	return nil
}

// changeState swaps the state of an open store.
func (db *DB) changeState(change func(*state) *state) {
	db.stateMu.Lock()
	defer db.stateMu.Unlock()
	if s := db.state.Load(); s != nil {
		db.state.Store(change(s))
	}
}
