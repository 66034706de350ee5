package server

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"unicode/utf8"

	"github.com/crowfly/crowfly/db"
)

// StoreStats describes a store: the answer to GET /-/stats, and what the command
// `crowfly stat` prints. Sizes are bytes.
type StoreStats struct {
	Keys        int    `json:"keys"`
	Live        int64  `json:"live_bytes"`            // present values with their records
	Dead        int64  `json:"dead_bytes"`            // overwritten and deleted ones, and tombstones
	Total       int64  `json:"total_bytes"`           // of all segments and blobs
	Reclaimable int64  `json:"reclaimable_bytes"`     // about what a compaction would give back now
	Stuck       int64  `json:"stuck_tombstone_bytes"` // tombstones that have to stay: older segments hold older records
	Blobs       int    `json:"blobs"`
	BlobBytes   int64  `json:"blob_bytes"`
	Sequence    uint64 `json:"sequence"`
	Generation  uint64 `json:"generation"`

	Hints        int `json:"hints"`         // segments that have one
	HintsMissing int `json:"hints_missing"` // segments that should

	Segments []SegmentStats `json:"segments"`

	// Compaction is nil for a store that is open for reading only.
	Compaction *CompactionStats `json:"compaction,omitempty"`

	// Process is nil if whoever has the store open was not asked.
	Process *ProcessStats `json:"process,omitempty"`
}

// SegmentStats describes a segment.
type SegmentStats struct {
	File     string `json:"file"`
	Active   bool   `json:"active"`
	Length   int64  `json:"length"`
	Live     int64  `json:"live_bytes"` // of records alone
	LiveKeys int    `json:"live_keys"`
}

// CompactionStats is what compaction may do, and what it has done since the
// store was opened.
type CompactionStats struct {
	SpaceTarget float64  `json:"space_target"` // see db.Options
	Rate        int64    `json:"rate"`         // bytes a second in the background, no limit if negative
	Backlog     int64    `json:"backlog_bytes"`
	Compactions int      `json:"compactions"`
	Segments    int      `json:"segments"` // that were replaced
	Read        int64    `json:"bytes_read"`
	Copied      int64    `json:"bytes_copied"`
	Freed       int64    `json:"bytes_freed"`
	Suspects    []string `json:"suspects"` // files of damaged segments, which stay as they are
}

// ProcessStats is what the process that has the store open holds of it.
type ProcessStats struct {
	Values    int          `json:"values"` // open handles
	Snapshots int          `json:"snapshots"`
	Leaked    int          `json:"leaked"` // of them, dropped without Close
	Oldest    *HandleStats `json:"oldest,omitempty"`

	Retired      int   `json:"retired_segments"` // removed and still read, or not yet found unread
	RetiredBytes int64 `json:"retired_bytes"`    // what they take on disk, with their blobs
	MovedBytes   int64 `json:"moved_bytes"`      // and what was moved to memory
	Revoked      int   `json:"revoked"`          // snapshots that had to expire

	Maps        int `json:"maps"`
	MapsRetired int `json:"maps_retired"` // address ranges held back
	MapsLimit   int `json:"maps_limit"`   // for both together
}

// HandleStats describes an open handle.
type HandleStats struct {
	Kind   string  `json:"kind"` // value or snapshot
	Key    string  `json:"key,omitempty"`
	Base64 []byte  `json:"key_base64,omitempty"` // a key that is not UTF-8
	Owner  string  `json:"owner"`                // the function and line that made it
	Age    float64 `json:"age_seconds"`
	Leaked bool    `json:"leaked,omitempty"`
}

// NewStoreStats makes a description of what a store says of itself.
func NewStoreStats(s db.Stats) StoreStats {
	d := StoreStats{
		Keys: s.Keys, Live: s.LiveBytes + s.BlobBytes - s.DeadBlobBytes, Dead: s.DeadBytes + s.DeadBlobBytes,
		Total: totalBytes(s), Reclaimable: s.Compaction.Reclaimable, Stuck: s.Compaction.StuckTombstones,
		Blobs: s.Blobs, BlobBytes: s.BlobBytes, Sequence: s.Sequence, Generation: s.Generation,
		Hints: s.Hints, HintsMissing: s.HintsMissing,
		Segments: []SegmentStats{}, Process: newProcessStats(s),
	}
	for _, seg := range s.Segments {
		d.Segments = append(d.Segments, SegmentStats{
			filepath.Base(seg.Path), seg.Active, seg.Length, seg.LiveBytes, seg.LiveKeys,
		})
	}
	if !s.ReadOnly {
		d.Compaction = newCompactionStats(s.Compaction)
	}
	return d
}

// totalBytes is what all segments and blobs take together.
func totalBytes(s db.Stats) int64 {
	n := s.BlobBytes
	for _, seg := range s.Segments {
		n += seg.Length
	}
	return n
}

func newCompactionStats(c db.CompactionStats) *CompactionStats {
	d := &CompactionStats{
		SpaceTarget: c.Target, Rate: c.Rate, Backlog: c.Backlog,
		Compactions: c.Compactions, Segments: c.Segments,
		Read: c.BytesRead, Copied: c.BytesWritten, Freed: c.BytesFreed,
		Suspects: []string{},
	}
	for _, id := range c.Suspect {
		d.Suspects = append(d.Suspects, id.FileName())
	}
	return d
}

func newProcessStats(s db.Stats) *ProcessStats {
	d := &ProcessStats{
		Values: s.Values, Snapshots: s.Snapshots,
		Retired: s.Pinned.Segments, RetiredBytes: s.Pinned.Bytes, MovedBytes: s.Pinned.Moved, Revoked: int(s.Pinned.Revoked),
		Maps: s.Maps.Live, MapsRetired: s.Maps.Retired, MapsLimit: s.Maps.Limit,
	}
	for _, h := range s.Handles {
		if h.Leaked {
			d.Leaked++
		}
	}
	if len(s.Handles) > 0 {
		d.Oldest = newHandleStats(s.Handles[0])
	}
	return d
}

func newHandleStats(h db.Handle) *HandleStats {
	d := &HandleStats{Kind: h.Kind, Owner: h.Site, Age: h.Age.Seconds(), Leaked: h.Leaked}
	if utf8.ValidString(h.Key) {
		d.Key = h.Key
	} else {
		d.Base64 = []byte(h.Key)
	}
	return d
}

// describe answers GET /-/stats.
func (x *exchange) describe() {
	s := x.store.Stats()
	if s.Closed {
		x.fail(db.ErrClosed)
		return
	}
	text, err := json.Marshal(NewStoreStats(s))
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	x.w.Header().Set("Cache-Control", "no-store")
	x.reply(http.StatusOK, "application/json", append(text, '\n'))
}
