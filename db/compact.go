package db

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
)

// compaction copies what is still needed of some sealed segments into a new
// one and takes them out of the store. Records keep their sequence numbers.
// The order of its steps is what makes it safe, see run.
type compaction struct {
	db     *DB
	inputs []entry
	ids    []segment.ID
	oldest uint64 // lowest sequence number in any segment but the inputs

	out   *segment.Writer // nil while nothing had to be kept
	moves []index.Move

	left, kept []segment.Record // the blobrefs among the inputs, and those copied
}

const copyStep = 1 << 20 // bytes copied between two writes

// compact runs under db.write.
func (db *DB) compact(inputs []entry) error {
	c := &compaction{db: db, inputs: inputs, oldest: ^uint64(0)}
	for _, e := range inputs {
		c.ids = append(c.ids, e.id)
	}
	for _, e := range db.manifests.get().segments {
		if !e.active && !c.isInput(e.id) {
			c.oldest = min(c.oldest, e.tally.MinSeq)
		}
	}
	err := c.run()
	if err != nil && c.out != nil {
		c.out.Trim()
		db.discard(c.out.Segment()) // the inputs stay as they are
	}
	return err
}

func (c *compaction) isInput(id segment.ID) bool { return slices.Contains(c.ids, id) }

// run is the commit order of a compaction:
//
//  1. copy what is live, verified
//  2. barrier: whatever made a record look dead must be as durable as the
//     manifest edit that removes it, so the active segment is synced first
//  3. readers get the output, the manifest gets output for inputs
//  4. index entries move over, where they still name the old record
//  5. readers lose the inputs, the files are unlinked
func (c *compaction) run() error {
	if err := c.copyAll(); err != nil {
		return err
	}
	if err := c.db.syncActive(); err != nil {
		return err
	}
	if c.out != nil {
		if err := errors.Join(c.out.Trim(), c.out.Sync()); err != nil {
			return err
		}
		if err := c.db.attach(c.out.Segment()); err != nil {
			return err
		}
	}
	if err := c.db.editManifest(c.commit); err != nil {
		return err
	}
	c.countBlobs()
	c.db.index.Repoint(c.resolve())
	c.db.retire(c.ids...)
	return nil
}

// commit replaces the inputs in the manifest, which lists segments by the age
// of their records. The active segment's durable
// length goes with it: a follower may only lose the inputs together with
// seeing what superseded their records.
func (c *compaction) commit(m *manifest) {
	m.nextID, m.nextSeq = c.db.writer.nextID, c.db.writer.seq+1
	place := slices.IndexFunc(m.segments, func(e entry) bool { return c.isInput(e.id) })
	m.drop(c.ids...)
	if c.out != nil {
		seg := c.out.Segment()
		m.segments = slices.Insert(m.segments, place, entry{
			id: seg.ID(), length: seg.Len(), salt: seg.Salt(), tally: c.out.Tally(),
		})
	}
	if w := c.db.writer.active; w != nil {
		m.entry(w.Segment().ID()).length = w.Segment().Synced()
	}
}

func (c *compaction) copyAll() error {
	st := c.db.state.Load()
	for _, e := range c.inputs {
		in := st.find(e.id)
		for r, err := range in.Records(segment.HeaderSize, e.length) {
			if err != nil {
				return err
			}
			if r.Kind == segment.KindBlobRef {
				c.left = append(c.left, r)
			}
			if !c.needed(st, in, &r) {
				continue
			}
			if err := c.copy(in, &r); err != nil {
				return err
			}
		}
	}
	if c.out == nil {
		return nil
	}
	return flush(c.out)
}

// needed tells what has to be kept: a put that the index points to, and a
// tombstone as long as a segment outside may hold an older record of its key.
// Dead records count there, since a later Open reads them too.
func (c *compaction) needed(st *state, in *segment.Segment, r *segment.Record) bool {
	switch r.Kind {
	case segment.KindPut, segment.KindBlobRef:
		hit, err := c.db.index.Lookup(st.segs, r.Key)
		return err != index.ErrAbsent && (err != nil || hit.Segment == in && hit.Offset == r.Offset)
	case segment.KindDelete:
		return c.oldest < r.Seq
	case segment.KindWatermark:
		return false
	}
	return true // of a newer version, which knows what it is for
}

// copy appends a verified copy of the record.
func (c *compaction) copy(in *segment.Segment, r *segment.Record) error {
	if err := r.VerifyValue(); err != nil {
		return in.Damage(r.Offset, err.Error())
	}
	if c.out == nil {
		_, w, err := c.db.createSegment(c.capacity())
		if err != nil {
			return err
		}
		c.out = w
	}
	if r.Kind == segment.KindBlobRef {
		c.kept = append(c.kept, *r)
	}
	if err := c.db.blobs.hold(c.out.Segment(), r, in.Store()); err != nil {
		return err
	}
	from := in.Ref(r.Offset)
	if err := appendCopy(c.out, r); err != nil {
		return err
	}
	c.moves = append(c.moves, index.Move{Key: r.Key, Old: from, New: segment.Ref(r.Offset), Size: r.End - r.Offset})
	return nil
}

// countBlobs notes which blobs the manifest's segments name now. One that only
// the inputs named goes with them.
func (c *compaction) countBlobs() {
	for i := range c.kept {
		c.db.blobs.count(&c.kept[i], 1)
	}
	for i := range c.left {
		c.db.blobs.count(&c.left[i], -1)
	}
}

// resolve turns the offsets in moves into Refs, now that the output has a slot.
func (c *compaction) resolve() []index.Move {
	for i := range c.moves {
		c.moves[i].New = c.out.Segment().Ref(int64(c.moves[i].New))
	}
	return c.moves
}

func (c *compaction) capacity() (n int64) {
	for _, e := range c.inputs {
		n += e.length
	}
	return n
}

// appendCopy stages a record of another segment in w, with its sequence
// number and checksum, and writes now and then.
func appendCopy(w *segment.Writer, r *segment.Record) error {
	r.Flags |= segment.FlagFirst | segment.FlagCopied
	r.Left, r.DurableTo = 0, 0
	if !w.Fits(r.End - r.Offset) {
		return fmt.Errorf("no room in %s for a record of %d bytes", w.Segment().Path(), r.End-r.Offset)
	}
	w.Append(r)
	if w.Staged() < copyStep {
		return nil
	}
	return flush(w)
}

func flush(w *segment.Writer) error {
	if err := w.Reserve(0); err != nil {
		return err
	}
	return w.Write()
}

const (
	foldRatio   = 4 // a segment is folded with those behind it up to this many times their size
	foldMinimum = 2
)

// fold merges small segments of earlier runs, which every run leaves one of.
// Going back from the newest, a segment joins while it is not much larger
// than all behind it together, as in a binary counter: the number of small
// segments stays logarithmic and no byte is copied more often than that. It
// is a convenience, so an error only means that the inputs stay.
func (db *DB) fold() {
	segs := db.manifests.get().segments
	var inputs []entry
	var size int64
	for i := len(segs) - 1; i >= 0; i-- {
		e := segs[i]
		if e.active {
			continue
		}
		if e.length > db.opts.SegmentSize/foldRatio || len(inputs) > 0 && e.length > foldRatio*size ||
			size+e.length > db.opts.SegmentSize {
			break
		}
		inputs = append(inputs, e)
		size += e.length
	}
	if len(inputs) >= foldMinimum {
		db.compact(inputs)
	}
}
