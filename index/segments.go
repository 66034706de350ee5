package index

import (
	"iter"
	"slices"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Segments is the set of segments that readers can see at one moment. It is
// immutable and replaced as a whole. A reader loads it before it asks the
// table: the set keeps its segments alive, and with them their slots, so a Ref
// found later names the right segment or none at all.
type Segments struct {
	bySlot []*segment.Segment // nil where a slot has no segment
}

// Location is a record in a segment. It holds the Segment, so it stays valid
// for as long as it is kept.
type Location struct {
	Segment *segment.Segment
	Offset  int64
}

// Ref is the location as the index stores it.
func (l Location) Ref() segment.Ref { return l.Segment.Ref(l.Offset) }

// Read returns the record, verified except for its value.
func (l Location) Read() (segment.Record, error) { return l.Segment.Read(l.Offset) }

// At is the location that a Ref names. Its Segment is nil if the set lacks it.
func (s *Segments) At(ref segment.Ref) Location {
	if slot := ref.Slot(); slot < len(s.bySlot) {
		return Location{s.bySlot[slot], ref.Offset()}
	}
	return Location{}
}

// of is the segment that a word names, nil if the set lacks it.
func (s *Segments) of(w word) *segment.Segment {
	if slot := w.ref().Slot(); w.named() && slot < len(s.bySlot) {
		return s.bySlot[slot]
	}
	return nil
}

// All iterates over the segments.
func (s *Segments) All() iter.Seq[*segment.Segment] {
	return func(yield func(*segment.Segment) bool) {
		for _, seg := range s.bySlot {
			if seg != nil && !yield(seg) {
				return
			}
		}
	}
}

// Find returns the segment with an ID, or nil.
func (s *Segments) Find(id segment.ID) *segment.Segment {
	for seg := range s.All() {
		if seg.ID() == id {
			return seg
		}
	}
	return nil
}

// Has reports whether the set contains a segment.
func (s *Segments) Has(seg *segment.Segment) bool {
	return seg.Slot() < len(s.bySlot) && s.bySlot[seg.Slot()] == seg
}

// Slots is a bound: the slot of every segment in the set is below it.
func (s *Segments) Slots() int { return len(s.bySlot) }

// with returns a set that contains the segment too.
func (s *Segments) with(seg *segment.Segment) *Segments {
	list := slices.Clone(s.bySlot)
	if n := seg.Slot() + 1; n > len(list) {
		list = append(list, make([]*segment.Segment, n-len(list))...)
	}
	list[seg.Slot()] = seg
	return &Segments{list}
}

// Segments is the current set, nil after Close.
func (x *Index) Segments() *Segments { return x.segs.Load() }

// Attach gives a segment a slot and shows it to readers. It comes before the
// first record of the segment is published. The slot becomes free when the
// collector finds the Segment unreachable, and no earlier: a reader may hold it
// long after it left the index. It fails with ErrNoSlots or ErrClosed.
func (x *Index) Attach(seg *segment.Segment) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	segs := x.segs.Load()
	if segs == nil {
		return ErrClosed
	}
	slot, ok := x.keys.slots.take(&held{seg.Bytes(), seg.Salt(), seg.Path()})
	if !ok {
		return ErrNoSlots
	}
	seg.Attach(slot)
	vfs.Own(seg, release, lease{&x.keys.slots, slot})
	if n := slot + 1; n > len(x.usage) {
		x.usage = append(x.usage, make([]Usage, n-len(x.usage))...)
	}
	x.usage[slot] = Usage{}
	x.segs.Store(segs.with(seg))
	return nil
}

// Detach takes segments out of the set and returns those that were in it. No
// word names them any more: Repoint or Merge has seen to that. Their bytes stay
// readable for readers that hold them.
func (x *Index) Detach(ids ...segment.ID) (detached []*segment.Segment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	segs := x.segs.Load()
	if segs == nil {
		return nil
	}
	list := slices.Clone(segs.bySlot)
	for slot, seg := range list {
		if seg != nil && slices.Contains(ids, seg.ID()) {
			detached = append(detached, seg)
			list[slot] = nil
		}
	}
	x.segs.Store(&Segments{list})
	return detached
}

// Close ends the index. Lookups that begin later return ErrClosed. What readers
// and snapshots hold stays valid.
func (x *Index) Close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.segs.Store(nil)
}
