package fuzz

import (
	"fmt"
	"slices"
	"strings"

	"github.com/crowfly/crowfly/segment"
)

// coverage counts what histories came through, so that a campaign that no
// longer gets there does not go unnoticed. A nil one counts nothing.
type coverage map[string]int

func (c coverage) note(what string) {
	if c != nil {
		c[what]++
	}
}

func (c coverage) add(other coverage) {
	for what, n := range other {
		c[what] += n
	}
}

// missing lists what was not seen.
func (c coverage) missing(wanted []string) []string {
	return slices.DeleteFunc(slices.Clone(wanted), func(what string) bool { return c[what] > 0 })
}

func (c coverage) String() string {
	var list []string
	for what, n := range c {
		list = append(list, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// What look and close note.
const (
	sawRotation = "rotation"                     // another segment became the active one
	sawFold     = "fold"                         // sealed segments were merged
	sawBlob     = "blob"                         // a value in a file of its own
	sawSectors  = "batch of several sectors"     // a power cut can halve it
	sawLarge    = "batch larger than a segment"  // it gets a file of its own
	sawNext     = "batch began the next segment" // it did not fit the rest of one
	sawHandles  = "closed with open handles"
	sawHint     = "opened by hints"

	sawOutlivedExpire = "a snapshot outlived its store and a file it needs"

	sawHintAfterCut = "recovered by hints"
)

// look finds out what the last operation has done to the segments.
func (s *session) look(op operation) {
	if s.seen == nil {
		return
	}
	stats := s.store.Stats()
	before := s.segments
	s.segments = make(map[segment.ID]bool)
	rotated := false
	for _, seg := range stats.Segments {
		s.segments[seg.ID] = seg.Active
		rotated = rotated || before[seg.ID] && !seg.Active
	}
	for id, active := range before {
		if _, ok := s.segments[id]; !ok && !active {
			s.seen.note(sawFold)
		}
	}
	if rotated {
		s.seen.note(sawRotation)
	}
	if stats.Blobs > s.blobs {
		s.seen.note(sawBlob)
	}
	s.blobs = stats.Blobs
	if op.kind == opBatch {
		s.lookAtBatch(op, rotated)
	}
}

func (s *session) lookAtBatch(op operation, rotated bool) {
	const sector = 512
	size := 0
	for _, p := range op.batch {
		size += p.size
	}
	switch {
	case size > int(s.opts.SegmentSize):
		s.seen.note(sawLarge)
	case rotated:
		s.seen.note(sawNext)
	}
	if size > sector {
		s.seen.note(sawSectors)
	}
}
