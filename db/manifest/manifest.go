// Package manifest keeps the list of the segments of a store. It is internal to
// crowfly: no promise is made about its API. The files it writes are part of
// the format on disk, see format.go.
//
// A [List] is one generation. It is immutable; an edit makes the next one, in a
// file of its own. Of the MANIFEST files in a directory the one with the highest
// generation counts. A generation is written under a temporary name, synced and
// renamed, and the directory is synced: a crash leaves the old generation or the
// new one. The generation before the current stays on disk until the current has
// a successor.
//
// The [Owner] is the only place in a process that edits the manifest. [Read] and
// [DecodeImage] serve recovery, followers and repair.
package manifest

import (
	"math"
	"slices"

	"github.com/crowfly/crowfly/segment"
)

// List is one generation of the complete list of the segments of a store.
type List struct {
	Store      segment.StoreID
	Generation uint64
	Epoch      uint32     // raised by every run that writes
	NextID     segment.ID // no file has this number or a higher one
	NextSeq    uint64     // no record outside the active segment has this number or a higher one
	ExpiryMark int64      // unix milliseconds; reserved for expiry
	Repaired   bool       // files it does not name may still have to go to the trash
	Segments   []Entry
}

// Entry is one segment in a list.
type Entry struct {
	ID       segment.ID
	Active   bool
	Length   int64 // logical length in bytes; of an active segment what is proven durable
	Capacity int64 // bytes that an active segment may grow to
	Salt     uint64
	Tally    segment.Tally // of a sealed segment
}

// Entry returns the entry of a segment, or nil.
func (m *List) Entry(id segment.ID) *Entry {
	for i := range m.Segments {
		if m.Segments[i].ID == id {
			return &m.Segments[i]
		}
	}
	return nil
}

// Active returns the entry of the segment that is being written, or nil.
func (m *List) Active() *Entry {
	for i := range m.Segments {
		if m.Segments[i].Active {
			return &m.Segments[i]
		}
	}
	return nil
}

// Drop removes entries from a list that an edit is making.
func (m *List) Drop(ids ...segment.ID) {
	m.Segments = slices.DeleteFunc(m.Segments, func(e Entry) bool { return slices.Contains(ids, e.ID) })
}

// LowestSeqs returns the two lowest of the sealed segments' lowest sequence
// numbers.
func (m *List) LowestSeqs() (lowest, second uint64) {
	lowest, second = math.MaxUint64, math.MaxUint64
	for i := range m.Segments {
		switch e := &m.Segments[i]; {
		case e.Active:
		case e.Tally.MinSeq < lowest:
			lowest, second = e.Tally.MinSeq, lowest
		default:
			second = min(second, e.Tally.MinSeq)
		}
	}
	return lowest, second
}
