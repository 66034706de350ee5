package db

import (
	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Stats is what a store looks like at one moment.
type Stats struct {
	ReadOnly bool
	Closed   bool

	Keys       int
	LiveBytes  int64  // records that hold the present values
	DeadBytes  int64  // records overwritten or deleted, and tombstones
	Sequence   uint64 // of the last write readers see
	Generation uint64 // of the manifest
	Segments   []SegmentStats

	Blobs         int   // values in files of their own, dead ones too
	BlobBytes     int64 // what they take besides the segments
	DeadBlobBytes int64 // of them, what no key names any more

	IndexBytes int64 // memory of the index, without what listings need besides

	// Hints are the segments that have one, HintsMissing those that are to
	// get one. A read-only store knows of what was there when it was opened.
	Hints, HintsMissing int

	// Since Open.
	Commits uint64 // acknowledged writes
	Records uint64 // puts and tombstones among them
	Syncs   uint64 // datasyncs they took

	Compaction CompactionStats
	Pinned     Pinned

	Handles   []Handle // open Values and Snapshots, the oldest first
	Values    int      // how many of them are Values
	Snapshots int

	Maps vfs.Maps // of the whole process
}

// Pinned is what removed segments, and large values that went with them, still
// take because somebody reads them, or because no collection has found out yet
// that nobody does.
type Pinned struct {
	Segments int   // removed and still there
	Bytes    int64 // of files without a name that take space on disk
	Moved    int64 // bytes of them that take memory instead

	// Since Open.
	Collections uint64 // forced
	Revoked     uint64 // snapshots that had to expire
}

// SegmentStats is one segment.
type SegmentStats struct {
	ID        segment.ID
	Path      string
	Active    bool
	Length    int64 // bytes
	LiveBytes int64
	LiveKeys  int
}

// Stats returns the present figures. Of a closed store only counters are left.
func (db *DB) Stats() Stats {
	s := Stats{
		ReadOnly: db.opts.ReadOnly,
		Keys:     db.index.Len(),

		IndexBytes: db.index.TableBytes(),

		Sequence: db.index.Visible(),
		Commits:  db.counters.commits.Load(),
		Records:  db.counters.records.Load(),
		Syncs:    db.counters.syncs.Load(),
		Maps:     vfs.MapStats(),
	}
	s.Pinned = db.pinned.stats(db.index.Segments())
	s.Handles = db.handles.list()
	for _, h := range s.Handles {
		if h.Kind == kindValue {
			s.Values++
		} else {
			s.Snapshots++
		}
	}
	s.Compaction = db.compactionStats()
	m := db.currentManifest()
	s.Generation = m.Generation
	if db.closed() {
		s.Closed = true
		return s
	}
	db.addSegments(&s, m)
	return s
}

func (db *DB) addSegments(s *Stats, m *manifest.List) {
	blobs := make(map[segment.ID]bool)
	for _, usage := range db.index.Usages() {
		seg := usage.Segment
		e := m.Entry(seg.ID())
		if e == nil {
			continue // the spare segment, or one on its way in or out
		}
		for _, b := range seg.Blobs() {
			if !blobs[b.ID()] {
				blobs[b.ID()] = true
				s.Blobs++
				s.BlobBytes += int64(b.Extent().Length)
				s.DeadBlobBytes += db.blobs.deadBytes(b)
			}
		}
		db.addHint(s, e)
		s.Segments = append(s.Segments, SegmentStats{
			ID: seg.ID(), Path: seg.Path(), Length: seg.Len(),
			Active:    e.Active,
			LiveBytes: usage.Bytes, LiveKeys: usage.Records,
		})
		s.LiveBytes += usage.Bytes
		s.DeadBytes += seg.Len() - segment.HeaderSize - usage.Bytes
	}
}

func (db *DB) addHint(s *Stats, e *manifest.Entry) {
	switch {
	case db.hints.isThere(e.ID):
		s.Hints++
	case db.wantsHint(e):
		s.HintsMissing++
	}
}
