package db

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// recover makes a store out of the files in the directory:
//
//	read the manifest of the highest generation
//	refuse files that a lost manifest must have named
//	read the sealed segments, which must be whole
//	read the tail of the segment that was active, and bring it to safety
//	remove what nobody names
//
// After a clean stop there is no active segment and nothing is written.
func (db *DB) recover() (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	names, err := db.fs.List()
	if err != nil {
		return err
	}
	m, err := manifest.Read(db.fs, names)
	if err != nil {
		return err
	}
	if m != nil {
		// The run that renamed it may have been killed before it synced the
		// directory. What is built on it now must not outlive it.
		if err := db.fs.SyncDir(); err != nil { // sabotage: sync-found-manifest
			return err
		}
	}
	if m == nil {
		if err := db.checkNew(names); err != nil {
			return err
		}
		m = &manifest.List{Store: segment.NewStoreID(), NextID: 1, NextSeq: 1}
	}
	db.writer.seq = m.NextSeq - 1
	next := m.NextID
	for _, name := range names {
		if id, ok := segment.ParseID(name); ok {
			next = max(next, id+1)
		}
	}
	db.manifests = manifest.NewOwner(db.fs, m, next)
	db.compactor.since = next
	if err := db.checkStrays(m, segment.Files(names)); err != nil { // sabotage: load-before-strays
		return err
	}
	if err := db.loadSealed(m); err != nil {
		return err
	}
	if err := db.recoverActive(m, names); err != nil {
		return err
	}
	db.removeStrayBlobs(names)
	db.finishRepair(m, names)
	db.index.DropTombstones()
	db.index.Publish(nil, db.writer.seq)
	return nil
}

// checkNew refuses a directory that has lost its manifest. A hint holds nothing
// that could be lost, but there is one only where there was a segment.
func (db *DB) checkNew(names []string) error {
	for _, name := range names {
		_, isHint := segment.ParseHintName(name)
		if _, ok := segment.ParseID(name); ok || isHint {
			return &CorruptError{Path: db.fs.Path(), Reason: fmt.Sprintf("there is %s but no manifest", name)}
		}
	}
	return nil
}

// checkStrays looks at segments that the manifest does not name. Outputs of a
// compaction that did not come to its end are harmless, and so are files
// without records. A put of its own with a number the manifest has not given
// out yet was acknowledged by a run whose manifest is gone.
func (db *DB) checkStrays(m *manifest.List, files []segment.ID) error {
	for _, id := range files {
		if m.Entry(id) != nil {
			continue
		}
		seg, err := db.openStray(m, id)
		if err != nil {
			return err
		}
		if seg == nil {
			continue
		}
		for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
			if err != nil {
				break
			}
			if r.Flags&segment.FlagCopied == 0 && r.Kind != segment.KindWatermark && r.Seq >= m.NextSeq {
				return &CorruptError{
					Path: seg.Path(), Offset: r.Offset,
					Reason: fmt.Sprintf("record %d is newer than %s, which does not name this file: a manifest was lost",
						r.Seq, segment.ManifestName(m.Generation)),
				}
			}
		}
	}
	return nil
}

// openStray opens a segment that the manifest does not name, or returns nil if
// its creation was not finished.
func (db *DB) openStray(m *manifest.List, id segment.ID) (*segment.Segment, error) {
	h, err := segment.ReadHeader(db.fs, id)
	path := filepath.Join(db.fs.Path(), id.FileName())
	switch {
	case errors.Is(err, ErrNewer):
		return nil, fmt.Errorf("%s: %w", path, err)
	case isNotExist(err):
		return nil, nil // its writer has just removed it
	case isPathError(err) && m.Repaired:
		return nil, nil // what a repair replaced goes to the trash unread
	case isPathError(err):
		// sabotage: unreadable-leftover
		return nil, err // what can't be read may be the proof
	case err != nil:
		return nil, nil
	case segment.ID(h.File) != id:
		return nil, nil // what the disk held there before
	case h.Store != m.Store && m.Repaired:
		return nil, nil // what that repair did not come to move
	case h.Store != m.Store:
		return nil, &CorruptError{Path: path, Offset: 16, Reason: fmt.Sprintf("file of another store (%v)", h.Store)}
	}
	seg, err := db.openSegment(id, m.Store, segment.WholeFile, 0)
	if isNotExist(err) {
		return nil, nil // its writer has just removed it
	}
	return seg, err
}

// openSegment opens a segment, if need be after a collection that gives mappings
// back.
func (db *DB) openSegment(id segment.ID, store segment.StoreID, length, capacity int64) (seg *segment.Segment, err error) {
	open := func() bool {
		seg, err = segment.Open(db.fs, id, store, length, capacity)
		return !outOfPlaces(err)
	}
	if !open() {
		db.collectUntil(open)
	}
	return seg, err
}

// openNamed opens a segment that the manifest names. capacity is for one that
// somebody else still writes.
func (db *DB) openNamed(m *manifest.List, e *manifest.Entry, length, capacity int64) (*segment.Segment, error) {
	seg, err := db.openSegment(e.ID, m.Store, length, capacity)
	if isNotExist(err) {
		return nil, &CorruptError{
			Path:   filepath.Join(db.fs.Path(), e.ID.FileName()),
			Reason: fmt.Sprintf("file is missing, %s names it", segment.ManifestName(m.Generation)),
		}
	}
	if err == nil && seg.Salt() != e.Salt {
		err = seg.Damage(40, fmt.Sprintf("another file of this name, %s has salt %x", segment.ManifestName(m.Generation), e.Salt))
	}
	return seg, err
}

// loadSealed puts the sealed segments into the index: those with a hint by
// that, unread, and then the others.
func (db *DB) loadSealed(m *manifest.List) error {
	var list []sealedSegment
	for i := range m.Segments {
		e := &m.Segments[i]
		if e.Active {
			continue
		}
		seg, err := db.openNamed(m, e, e.Length, 0)
		if err != nil {
			return err
		}
		if err := db.attach(seg); err != nil {
			return err
		}
		list = append(list, sealedSegment{seg, e})
	}
	for _, s := range db.loadHints(list) {
		changes, err := db.readSealed(s.Segment, s.entry)
		if err != nil {
			return err
		}
		dead, err := db.index.Merge(changes, 0)
		if err != nil {
			return err
		}
		db.bury(dead)
	}
	return nil
}

// readSealed reads the records of a sealed segment and checks that they are
// those the manifest knows.
func (db *DB) readSealed(seg *segment.Segment, e *manifest.Entry) ([]index.Change, error) {
	changes, tally, err := db.readRecords(seg, segment.HeaderSize, e.Length)
	if err == nil && tally != e.Tally {
		err = wrongTally(seg, tally, e.Tally)
	}
	return changes, err
}

func wrongTally(seg *segment.Segment, got, want segment.Tally) error {
	return seg.Damage(segment.HeaderSize, fmt.Sprintf("holds records %+v, the manifest says %+v", got, want))
}

func unverified(seg *segment.Segment, off, proven int64) error {
	return seg.Damage(off, fmt.Sprintf("record does not verify, though everything up to %d was synced", proven))
}

func newerRecord(seg *segment.Segment, tail segment.Tail) error {
	return fmt.Errorf("%s: record at offset %d: %w", seg.Path(), tail.Valid, tail.Newer)
}

// readRecords reads the index entries and the tally of [from, to).
func (db *DB) readRecords(seg *segment.Segment, from, to int64) (changes []index.Change, t segment.Tally, err error) {
	for r, err := range seg.Records(from, to) {
		if err != nil {
			return nil, t, err
		}
		t.Add(&r)
		if !r.Kind.Indexed() {
			if r.Kind != segment.KindWatermark {
				db.index.CountUnnamed(seg, 0, r.End-r.Offset)
			}
			continue
		}
		if err := db.blobs.hold(seg, &r, seg.Store()); err != nil {
			return nil, t, err
		}
		db.blobs.count(&r, 1)
		changes = append(changes, db.change(seg, &r))
	}
	return changes, t, nil
}

// recoverActive deals with the segment that was being written. What a sync
// had proven durable must be whole. Complete batches behind that are kept too,
// but copied: they may exist in the page cache only, and nobody appends to a
// file of an earlier run.
func (db *DB) recoverActive(m *manifest.List, names []string) error {
	if e := m.Active(); e != nil {
		return db.recoverTail(m, e, names)
	}
	db.removeStrays(m, names)
	return nil
}

func (db *DB) recoverTail(m *manifest.List, e *manifest.Entry, names []string) error {
	seg, err := db.openNamed(m, e, segment.WholeFile, 0)
	if err != nil {
		return err
	}
	tail := seg.RecoverTail(e.Length)
	if tail.Newer != nil {
		return newerRecord(seg, tail)
	}
	if tail.Valid < tail.Proven { // sabotage: copy-tail
		return unverified(seg, tail.Valid, tail.Proven)
	}
	if err := db.attach(seg); err != nil {
		return err
	}
	changes, tally, err := db.readRecords(seg, segment.HeaderSize, tail.Proven)
	if err != nil {
		return err
	}
	if err := db.checkTail(seg, tail); err != nil {
		return err
	}
	db.noteSeq(tail.MaxSeq) // sabotage: note-torn-seq
	dead, err := db.index.Merge(changes, 0)
	if err != nil {
		return err
	}
	db.bury(dead)
	// Nothing is damaged. The disk may be full, so first whatever is not
	// needed any more makes room.
	db.removeStrays(m, names)
	db.fs.Trim(e.ID.FileName())
	copied, err := db.copyTail(seg, tail)
	if err != nil {
		return writeError(err)
	}
	seg.SetLen(tail.Proven)
	sealed := manifest.Entry{ID: e.ID, Length: tail.Proven, Salt: seg.Salt(), Tally: tally}
	err = db.editManifest(func(m *manifest.List) {
		m.NextID, m.NextSeq = db.manifests.NextID(), db.writer.seq+1
		if *m.Entry(e.ID) = sealed; tally.Records == 0 {
			m.Drop(e.ID)
		}
		if copied != nil {
			m.Segments = append(m.Segments, *copied)
		}
	})
	if err != nil {
		return writeError(err)
	}
	if tally.Records == 0 {
		db.retire(e.ID)
	}
	return nil
}

// checkTail makes sure that the references in a tail can be copied.
func (db *DB) checkTail(seg *segment.Segment, tail segment.Tail) error {
	known := make(map[segment.ID]segment.BlobExtent)
	for r, err := range seg.Records(tail.Proven, tail.Valid) {
		if err != nil {
			return err
		}
		if r.Kind != segment.KindBlobRef {
			continue
		}
		list, err := extentsOf(seg, &r)
		if err != nil {
			return err
		}
		for _, x := range list {
			if other, ok := known[x.Blob]; ok && other != x {
				return otherExtent(seg, r.Offset, x, other)
			}
			known[x.Blob] = x
			if err := db.blobs.check(seg, &r, x); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyTail writes the records of [tail.Proven, tail.Valid) to a segment of
// their own and makes it durable.
func (db *DB) copyTail(seg *segment.Segment, tail segment.Tail) (*manifest.Entry, error) {
	var w *segment.Writer
	for r, err := range seg.Records(tail.Proven, tail.Valid) {
		if err != nil {
			return nil, err
		}
		if r.Kind == segment.KindWatermark {
			continue
		}
		if w == nil {
			if _, w, err = db.createSegment(segment.HeaderSize + tail.Valid - tail.Proven); err != nil {
				return nil, err
			}
		}
		if err := w.AppendCopy(&r, nil); err != nil {
			return nil, err
		}
	}
	if w == nil {
		return nil, nil
	}
	if err := errors.Join(w.Flush(nil), w.Trim(), w.Sync()); err != nil { // sabotage: sync-copied-tail
		return nil, err
	}
	out := w.Segment()
	if err := db.attach(out); err != nil {
		return nil, err
	}
	changes, tally, err := db.readRecords(out, segment.HeaderSize, out.Len())
	if err != nil {
		return nil, err
	}
	db.bury(db.index.Publish(changes, 0))
	return &manifest.Entry{ID: out.ID(), Length: out.Len(), Salt: out.Salt(), Tally: tally}, nil
}

func (db *DB) noteSeq(seq uint64) { db.writer.seq = max(db.writer.seq, seq) }

// removeStrays removes temporary files, segments that are not in the manifest
// with their hints, and manifests before the last two. Nobody can need them, so a
// failure does not matter.
func (db *DB) removeStrays(m *manifest.List, names []string) {
	if m.Repaired { // sabotage: trash-originals
		return // that is for finishRepair
	}
	for _, name := range names {
		id, ok := segment.ParseFileName(name)
		if !ok {
			id, ok = segment.ParseHintName(name)
		}
		gen, isManifest := segment.ParseManifestName(name)
		if ok && m.Entry(id) == nil {
			db.fs.Trim(name) // at once: the collector still has it mapped
			db.fs.Remove(name)
		}
		if segment.IsTempName(name) || isManifest && gen+1 < m.Generation {
			db.fs.Remove(name)
		}
	}
}

// removeStrayBlobs does the same for blobs that no record names, once all
// records are known.
func (db *DB) removeStrayBlobs(names []string) {
	if db.manifests.Current().Repaired {
		return
	}
	for _, name := range names {
		if db.blobs.stray(name) {
			db.fs.Remove(name)
		}
	}
}

// finishRepair moves to the trash what a repair that was cut off left behind, of
// the names there were when the store was opened. What can't be moved stays, and
// the next Open tries again.
func (db *DB) finishRepair(m *manifest.List, names []string) {
	if !m.Repaired {
		return
	}
	stays := false
	for _, name := range names {
		id, isSegment := segment.ParseFileName(name)
		gen, isManifest := segment.ParseManifestName(name)
		hinted, isHint := segment.ParseHintName(name)
		var err error
		switch {
		case isSegment && m.Entry(id) == nil, isManifest && gen < m.Generation, db.blobs.stray(name):
			_, err = db.fs.Trash(name)
		case segment.IsTempName(name), isHint && m.Entry(hinted) == nil:
			db.fs.Remove(name)
		}
		stays = stays || err != nil
	}
	if !stays && db.fs.SyncDir() == nil {
		db.manifests.EndRepair()
	}
}
