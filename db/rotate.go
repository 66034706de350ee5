package db

import (
	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
)

// rotate seals the active segment, if there is one, and begins the next, with
// room for size bytes. The new file is named by the manifest before it gets
// its first record, so a record in a file that no manifest names is proof of a
// lost manifest.
func (db *DB) rotate(size int64) error {
	if err := db.syncActive(); err != nil { // sabotage: sync-before-seal
		return err
	}
	if err := db.establish(); err != nil {
		return err
	}
	w, err := db.nextSegment(size)
	if err != nil {
		return err
	}
	old, seg := db.writer.active, w.Segment()
	err = db.noteUnknown(db.manifests.EditAndPrepare(func(m *manifest.List) {
		db.sealActive(m)
		m.Segments = append(m.Segments, manifest.Entry{
			ID: seg.ID(), Active: true, Length: segment.HeaderSize, Capacity: int64(len(seg.Bytes())), Salt: seg.Salt(),
		})
	}))
	if err != nil {
		if w != db.writer.spare {
			db.discard(seg)
		}
		return err
	}
	if w == db.writer.spare {
		db.writer.spare = nil
	}
	db.writer.active, db.writer.broken = w, false
	if old != nil {
		db.afterSeal(old)
	}
	return nil
}

// establish gives a new store its first manifest, and with it its identity,
// before any other file.
func (db *DB) establish() error {
	if db.manifests.Current().Generation > 0 {
		return nil
	}
	return db.editManifest(func(*manifest.List) {})
}

// nextSegment returns the spare segment, if size bytes fit it, or makes another.
func (db *DB) nextSegment(size int64) (*segment.Writer, error) {
	if w := db.writer.spare; w != nil && w.Fits(size+segment.WatermarkSize) {
		return w, nil
	}
	return db.makeSegment(max(db.segmentSize(), segment.HeaderSize+size+segment.WatermarkSize))
}

// makeSegment makes an empty segment that readers can see.
func (db *DB) makeSegment(capacity int64) (*segment.Writer, error) {
	seg, w, err := db.createSegment(capacity)
	if err != nil {
		return nil, err
	}
	if err := db.attach(seg); err != nil {
		db.fs.Remove(seg.ID().FileName())
		return nil, err
	}
	return w, nil
}

// createSegment makes the file of the next segment.
func (db *DB) createSegment(capacity int64) (seg *segment.Segment, w *segment.Writer, err error) {
	err = db.collecting(func() (err error) {
		seg, w, err = segment.Create(db.fs, db.manifests.TakeID(), db.manifests.Current().Store, db.manifests.Epoch(), capacity)
		return err
	})
	return seg, w, err
}

// editManifest changes the manifest.
func (db *DB) editManifest(change func(*manifest.List)) error {
	return db.noteUnknown(db.manifests.Edit(change))
}

// noteUnknown takes the error of an edit of the manifest. If nobody knows whether
// the change reached the disk, it may have sealed the active segment there, so
// this run must not write any more.
func (db *DB) noteUnknown(err error) error {
	if err != nil && !db.manifests.OutcomeKnown() {
		db.writer.poison = err // sabotage: poison-unknown-manifest
	}
	return err
}

// discard takes back a new segment that did not get into the manifest. If it
// may have, it stays.
func (db *DB) discard(seg *segment.Segment) {
	if db.manifests.OutcomeKnown() { // sabotage: keep-unknown-segment
		db.retire(seg.ID())
	}
}

// sealActive puts what is known of the active segment into a manifest. All of
// it has been synced. A segment without records is dropped instead. Every edit
// also carries the next numbers.
func (db *DB) sealActive(m *manifest.List) {
	m.NextID, m.NextSeq = db.manifests.NextID(), db.writer.seq+1
	if db.writer.active == nil {
		return
	}
	seg := db.writer.active.Segment()
	if db.writer.active.Tally().Records == 0 {
		m.Drop(seg.ID())
		return
	}
	*m.Entry(seg.ID()) = manifest.Entry{
		ID: seg.ID(), Length: seg.Len(), Salt: seg.Salt(), Tally: db.writer.active.Tally(),
	}
}

// afterSeal tidies up behind a segment that the manifest has as sealed, or no
// longer has.
func (db *DB) afterSeal(w *segment.Writer) {
	if w.Tally().Records == 0 {
		db.retire(w.Segment().ID())
		return
	}
	w.Trim() // only gives back reserved blocks; failing costs space, not data
}

// retire takes segments away that no manifest names and no index entry points
// to. Their bytes stay readable for whoever still holds them.
func (db *DB) retire(ids ...segment.ID) {
	db.pinned.add(db.index.Detach(ids...))
	for _, id := range ids {
		db.fs.Remove(id.FileName()) // the next open removes what stays behind
		if db.hints.has(id) {
			db.fs.Remove(id.HintName()) // sabotage: remove-hint
		}
	}
	db.hints.forget(ids)
	db.scheduleReclaim()
}
