package db

import (
	"bytes"
	"container/heap"
	"errors"
	"iter"
	"slices"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// A hint saves Open the reading of a sealed segment. Nothing depends on it:
// the manifest says which records a segment has, a hint is used only if it was
// made for exactly those, and whatever is wrong with one means that the
// segment is read. What a hint said of a record is proven by the record before
// anybody sees it.

// maxHintMinimum bounds the length in bytes from which a segment gets a hint. To
// read a shorter one takes less than to sync the hint. Small segments get one from
// a quarter of their size on.
const maxHintMinimum = 1 << 20

func (db *DB) hintMinimum() int64 { return min(maxHintMinimum, db.opts.SegmentSize/4) }

// hintAtClose is the number of records up to which Close waits for the hint of
// the last segment: a quarter of a second.
const hintAtClose = 1 << 18

// hints knows which segments need no hint any more in this run: they have a
// good one, which is true, or it was tried.
type hints struct {
	mu   lockorder.Mutex[lockorder.Hints]
	done map[segment.ID]bool
}

func (h *hints) note(id segment.ID, good bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done == nil {
		h.done = make(map[segment.ID]bool)
	}
	h.done[id] = good
}

func (h *hints) forget(ids []segment.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		delete(h.done, id)
	}
}

func (h *hints) has(id segment.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, done := h.done[id]
	return done
}

func (h *hints) isThere(id segment.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done[id]
}

func (db *DB) wantsHint(e *manifest.Entry) bool { return !e.Active && e.Length >= db.hintMinimum() }

// missingHints returns the sealed segments that should get a hint: none on a disk
// that is nearly full.
func (db *DB) missingHints() (list []manifest.Entry) {
	if db.scarce() {
		return nil
	}
	for _, e := range db.manifests.Current().Segments {
		if db.wantsHint(&e) && !db.hints.has(e.ID) {
			list = append(list, e)
		}
	}
	return list
}

// writeHint writes the hint of a sealed segment, in the place of one that is
// of no use. It reads the segment, and a *CorruptError says that this is
// damaged. It is not called for two segments at a time, and takes no lock.
func (db *DB) writeHint(seg *segment.Segment, e manifest.Entry) error {
	db.hints.note(e.ID, false) // once a run: the next one tries again
	name := e.ID.HintName()
	temp := segment.TempName(name)
	file, err := vfs.CreateAnew(db.fs, temp)
	if err != nil {
		return err
	}
	err = errors.Join(seg.WriteHint(file, e.Tally), file.Sync(), file.Close())
	if err == nil {
		db.fs.Remove(name)
		err = db.fs.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, db.fs.Remove(temp))
	}
	// Losing the name costs a scan, so the directory is not synced.
	if db.manifests.Current().Entry(e.ID) == nil {
		return db.fs.Remove(name) // the segment has left the store meanwhile
	}
	db.hints.note(e.ID, true)
	return nil
}

// hintLast writes the hint of the segment that Close has sealed, if that is
// worth it and does not take long. If it fails, the next Open reads the segment.
func (db *DB) hintLast(id segment.ID) {
	for _, e := range db.missingHints() {
		if e.ID == id && e.Tally.Records <= hintAtClose {
			db.writeHint(db.index.Segments().Find(id), e)
		}
	}
}

// sealedSegment is one that is being loaded.
type sealedSegment struct {
	*segment.Segment
	entry *manifest.Entry
}

// loadHints fills the index, which is empty and has no readers yet, from the
// hints of segments, and returns those that have to be read.
func (db *DB) loadHints(list []sealedSegment) (rest []sealedSegment) {
	merge := hintMerge{named: make(map[segment.Ref]bool), blobs: make(map[segment.ID]bool)}
	for _, s := range list {
		if h, err := segment.OpenHint(db.fs, s.Segment, s.entry.Tally); err == nil {
			merge.add(s, h)
		} else {
			rest = append(rest, s)
		}
	}
	heap.Init(&merge)
	db.index.Load(merge.newest())
	for _, c := range merge.ended {
		extents, err := db.endHint(c)
		if err != nil {
			rest = append(rest, c.sealedSegment)
			continue
		}
		db.hints.note(c.ID(), true)
		tombstones, newer := c.hint.Unnamed()
		db.index.CountUnnamed(c.Segment, tombstones, newer)
		merge.sort(c, extents)
	}
	db.buryUnnamed(&merge)
	return rest
}

// endHint makes the segment hold the blobs that its records name, once all
// entries of the hint have been read, and closes the hint.
func (db *DB) endHint(c *hintCursor) ([]segment.HintExtent, error) {
	defer c.hint.Close()
	extents, err := c.hint.Extents()
	if err != nil { // sabotage: believe-hint
		return nil, err
	}
	for i := range extents {
		if err := db.blobs.holdExtent(c.Segment, extents[i].Offset, extents[i].BlobExtent, c.Store()); err != nil {
			return nil, err
		}
	}
	for i := range extents {
		db.blobs.countExtent(extents[i].BlobExtent, 1)
	}
	return extents, nil
}

// buryUnnamed is DB.bury for what hints tell of.
func (db *DB) buryUnnamed(m *hintMerge) {
	db.blobs.bury(slices.DeleteFunc(m.unnamed, func(x segment.BlobExtent) bool { return m.blobs[x.Blob] }))
}

// hintCursor is a hint that is being read, and where it is.
type hintCursor struct {
	sealedSegment
	hint   *segment.Hint
	change index.Change // its key is valid until next
}

func (c *hintCursor) next() bool {
	if !c.hint.Next() {
		return false
	}
	e := c.hint.Entry()
	c.change = index.Change{Key: e.Key, Ref: c.Ref(e.Offset), Seq: e.Seq, Kind: e.Kind, Size: e.Size}
	return true
}

// hintMerge merges hints: a heap of those that have more to come, the one with
// the least key first, among equals the newest.
type hintMerge struct {
	open  []*hintCursor
	ended []*hintCursor // at the end, or at an error
	key   []byte        // the last one

	named   map[segment.Ref]bool // the newest records of their keys that are blobrefs
	blobs   map[segment.ID]bool  // what these name
	unnamed []segment.BlobExtent // what others do
}

func (m *hintMerge) add(s sealedSegment, h *segment.Hint) {
	c := &hintCursor{sealedSegment: s, hint: h}
	if c.next() {
		m.open = append(m.open, c)
	} else {
		m.ended = append(m.ended, c)
	}
}

// newest iterates over the newest record of each key.
func (m *hintMerge) newest() iter.Seq[*index.Change] {
	return func(yield func(*index.Change) bool) {
		for len(m.open) > 0 {
			c := m.open[0]
			if m.key == nil || !bytes.Equal(c.change.Key, m.key) {
				m.key = append(m.key[:0], c.change.Key...)
				if c.change.Kind == segment.KindBlobRef {
					m.named[c.change.Ref] = true
				}
				if !yield(&c.change) {
					return
				}
			}
			if c.next() {
				heap.Fix(m, 0)
			} else {
				m.ended = append(m.ended, heap.Pop(m).(*hintCursor))
			}
		}
	}
}

// sort tells the blobs of a segment that a key names from those that none does.
func (m *hintMerge) sort(c *hintCursor, extents []segment.HintExtent) {
	for i := range extents {
		if x := &extents[i]; m.named[c.Ref(x.Offset)] {
			m.blobs[x.Blob] = true
		} else {
			m.unnamed = append(m.unnamed, x.BlobExtent)
		}
	}
}

// Less also puts the tombstone first of two records with the same number.
func (m *hintMerge) Less(i, j int) bool {
	a, b := &m.open[i].change, &m.open[j].change
	if order := bytes.Compare(a.Key, b.Key); order != 0 {
		return order < 0
	}
	if a.Seq != b.Seq {
		return a.Seq > b.Seq // sabotage: newest-hint-wins
	}
	return a.Kind == segment.KindDelete
}

func (m *hintMerge) Len() int      { return len(m.open) }
func (m *hintMerge) Swap(i, j int) { m.open[i], m.open[j] = m.open[j], m.open[i] }
func (m *hintMerge) Push(any)      { panic("unused") }

func (m *hintMerge) Pop() any {
	last := len(m.open) - 1
	c := m.open[last]
	m.open = m.open[:last]
	return c
}
