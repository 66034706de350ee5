package check

import (
	"errors"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
)

// rebuild makes the next manifest: undamaged segments as they are, of the
// others what verifies, in copies.
func (r *repair) rebuild() error {
	s := r.survey
	r.named, r.kept = make(map[segment.ID]bool), make(map[string]keptRecord)
	r.next = manifest.List{
		Store: s.store, Generation: s.top + 1, Epoch: s.epoch + 1,
		NextID: s.base.NextID, NextSeq: s.base.NextSeq, ExpiryMark: s.base.ExpiryMark, Repaired: true,
	}
	for _, name := range s.names {
		if id, ok := segment.ParseID(name); ok {
			r.next.NextID = max(r.next.NextID, id+1)
		}
	}
	if !r.dry {
		// What the new manifest builds on must not be lost with the names.
		if err := r.fs.SyncDir(); err != nil {
			return err
		}
	}
	for _, f := range s.findings {
		r.next.NextSeq = max(r.next.NextSeq, f.maxSeq+1)
		if f.missing || f.foreign {
			continue
		}
		if err := r.segmentOf(f); err != nil {
			return err
		}
	}
	if s.lost || len(r.report.Unknown) > 0 {
		r.next.NextSeq += lostSeqs
	}
	return nil
}

// segmentOf decides what becomes of one segment.
func (r *repair) segmentOf(f *finding) error {
	var from int64 // records from here on are copied
	switch {
	case f.damaged():
		from = segment.HeaderSize
	case f.sealed():
		from = f.end
		r.next.Segments = append(r.next.Segments, *f.entry)
	case f.entry != nil && !r.survey.lost:
		from = f.end // its tail is for the next Open
		r.next.Segments = append(r.next.Segments, *f.entry)
	default:
		// As in recovery: what was durable stays, and what may not be
		// durable behind it is copied.
		from = f.proven
		if f.tally.Records > 0 {
			r.next.Segments = append(r.next.Segments, manifest.Entry{ID: f.id, Length: f.proven, Salt: f.salt, Tally: f.tally})
		}
	}
	if from == f.end && len(r.losses) == 0 {
		r.name(f.refs)
		return nil
	}
	return r.copyFrom(f, from)
}

func (f *finding) damaged() bool { return len(f.damage) > 0 || len(f.lost) > 0 }

// copyFrom reads a segment once more, notes the records that stay and writes
// those from an offset on to a segment of their own.
func (r *repair) copyFrom(f *finding, from int64) error {
	again := &finding{id: f.id, name: f.name, entry: f.entry}
	data, err := r.load(again)
	if err != nil {
		return err
	}
	data = data[:min(f.end, int64(len(data)))]
	var w *segment.Writer
	for p := range f.pieces(data) {
		if !p.Usable || !r.blobWhole(&p.Record) {
			continue
		}
		r.keep(&p.Record)
		if p.From < from || p.Record.Kind == segment.KindWatermark {
			continue
		}
		r.report.Copied++
		if r.dry {
			continue
		}
		if w == nil {
			if w, err = r.create(int64(len(data))); err != nil {
				return err
			}
		}
		if err := w.AppendCopy(&p.Record, nil); err != nil {
			return err
		}
	}
	if w == nil {
		return nil
	}
	if err := errors.Join(w.Flush(nil), w.Trim(), w.Sync()); err != nil {
		return err
	}
	out := w.Segment()
	r.next.Segments = append(r.next.Segments, manifest.Entry{ID: out.ID(), Length: out.Len(), Salt: out.Salt(), Tally: w.Tally()})
	return nil
}

// create makes the segment for copies of at most so many bytes of records.
func (r *repair) create(size int64) (*segment.Writer, error) {
	id := r.next.NextID
	r.next.NextID++
	_, w, err := segment.Create(r.fs, id, r.next.Store, r.next.Epoch, size)
	if err == nil {
		r.outputs = append(r.outputs, id.FileName())
	}
	return w, err
}

// blobWhole reports whether a record names no blob, or one without damage.
func (r *repair) blobWhole(rec *segment.Record) bool {
	if rec.Kind != segment.KindBlobRef {
		return true
	}
	list, _, err := segment.DecodeBlobExtents(rec.Value)
	if err != nil || len(list) != 1 {
		return false
	}
	damage, known := r.blobs[list[0]]
	return known && len(damage) == 0
}

// keep notes a record that stays.
func (r *repair) keep(rec *segment.Record) {
	if rec.Kind == segment.KindBlobRef {
		list, _, _ := segment.DecodeBlobExtents(rec.Value)
		r.name(list)
	}
	if _, lost := r.losses[string(rec.Key)]; !lost || !rec.Kind.Indexed() {
		return
	}
	if old, ok := r.kept[string(rec.Key)]; !ok || old.seq <= rec.Seq {
		r.kept[string(rec.Key)] = keptRecord{rec.Seq, rec.Kind}
	}
}
