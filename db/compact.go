package db

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// compaction copies what is still needed of some sealed segments into new
// ones and takes them out of the store. Records keep their sequence numbers.
// The order of its steps is what makes it safe, see commit. It belongs to
// whoever holds compactor.mu; neither readers nor writers wait for it, and it
// goes forward a little at a time.
type compaction struct {
	db     *DB
	inputs []*segment.Segment
	oldest uint64 // lowest sequence number in any sealed segment but the inputs

	input   int   // being copied
	offset  int64 // of the next record there
	passed  int64 // bytes of the inputs so far
	skipped int64 // bytes of them that there was no need to read

	outputs []*segment.Writer
	made    int   // how many of them the manifest got
	written int64 // bytes in the outputs
	synced  int64 // how many of them when they were last synced
	moves   []move

	room     int64 // bytes that it might write, when it began
	borrowed bool  // it writes to blocks that were held for it
	lent     int64 // bytes that are left of those

	unclear *segment.Segment // the input with a record of which nobody can tell if it is needed
	failed  error            // why it came to nothing

	left, kept []segment.Record // the blobrefs among the inputs, and those copied
	freed      int64            // bytes of blobs that only the inputs named
}

// move says that a live record was copied. There may be millions.
type move struct{ from, to segment.Ref }

const (
	copyStep    = 1 << 20 // bytes copied between two writes
	syncStep    = 8 << 20 // and between two syncs, so that no sync takes long
	repointStep = 1 << 8  // index entries moved at a time
)

// newCompaction begins a compaction of segments that are in the manifest.
func (db *DB) newCompaction(inputs []*segment.Segment) *compaction {
	c := &compaction{db: db, inputs: inputs, offset: segment.HeaderSize, oldest: ^uint64(0)}
	c.borrow()
	for _, e := range db.manifests.Current().Segments {
		if !e.Active && !c.isInput(e.ID) { // sabotage: count-dead-outside
			c.oldest = min(c.oldest, e.Tally.MinSeq)
		}
	}
	return c
}

func (c *compaction) isInput(id segment.ID) bool {
	return slices.ContainsFunc(c.inputs, func(in *segment.Segment) bool { return in.ID() == id })
}

// size is how many bytes it has to read.
func (c *compaction) size() (n int64) {
	for _, in := range c.inputs {
		n += in.Len()
	}
	return n
}

// read is how many bytes of the inputs it has read.
func (c *compaction) read() int64 { return c.passed - c.skipped }

// run does all that is left.
func (c *compaction) run() error {
	for done := false; !done; {
		var err error
		if done, err = c.step(copyStep); err != nil {
			return err
		}
	}
	return nil
}

// step goes on for about so many bytes of the inputs and, when all are copied,
// commits. After an error the outputs are gone, unless nobody knows whether the
// manifest names them, and the inputs are as they were.
func (c *compaction) step(bytes int64) (done bool, err error) {
	done, err = c.copySome(bytes)
	if err == nil && done {
		err = c.commit()
	}
	if err != nil {
		c.discard()
	} else if done {
		c.giveBack()
	}
	return done, err
}

// copySome copies what is needed of the next so many bytes.
func (c *compaction) copySome(bytes int64) (done bool, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	for end := c.read() + bytes; c.read() < end; { // what is skipped costs nothing
		if c.input == len(c.inputs) {
			return true, c.flush()
		}
		in := c.inputs[c.input]
		if c.offset == segment.HeaderSize && c.db.nothingIn(in) {
			c.skip(in)
		}
		if c.offset >= in.Len() {
			c.input, c.offset = c.input+1, segment.HeaderSize
			continue
		}
		r, err := in.Read(c.offset)
		if err != nil {
			return false, err
		}
		if err := c.take(in, &r); err != nil {
			return false, err
		}
		c.passed += r.End - c.offset
		c.offset = r.End
	}
	return false, c.flush()
}

// skip passes over a segment unread.
func (c *compaction) skip(in *segment.Segment) {
	c.offset = in.Len()
	c.passed += in.Len() - segment.HeaderSize
	c.skipped += in.Len() - segment.HeaderSize
}

// nothingIn reports whether nothing in a sealed segment is needed, and never
// will be: no present value, no tombstone, no record that names a blob or whose
// kind only a newer version knows, and no older version of a value that is
// damaged elsewhere. The caller holds compactor.mu.
func (db *DB) nothingIn(seg *segment.Segment) bool {
	return len(db.compactor.suspect) == 0 && db.index.Usage(seg) == index.Usage{} && len(seg.Blobs()) == 0 // sabotage: nothing-in
}

// take copies a record if it is needed.
func (c *compaction) take(in *segment.Segment, r *segment.Record) error {
	if r.Kind == segment.KindBlobRef {
		c.left = append(c.left, *r)
	}
	needed, err := c.needed(in, r)
	if err != nil {
		c.unclear = in
	}
	if !needed {
		return err
	}
	return c.copy(in, r)
}

// needed tells what has to be kept: a put that the index points to, and a
// tombstone as long as a segment outside may hold an older record of its key.
// Dead records count there, since a later Open reads them too. The active
// segment has no record that is older than any in a sealed one.
//
// It fails if the newest record of the key is damaged or can't be read. To keep
// this one then would be to copy it again and again, and perhaps to lose the
// tombstone between the two.
func (c *compaction) needed(in *segment.Segment, r *segment.Record) (_ bool, err error) {
	switch r.Kind {
	case segment.KindPut, segment.KindBlobRef:
		defer vfs.EndGuard(vfs.BeginGuard(), &err)
		hit, err := c.db.lookup(r.Key)
		switch {
		case errors.Is(err, ErrNotFound):
			return false, nil
		case err != nil:
			return false, err // sabotage: unclear-record
		case hit.Segment == in:
			return hit.Offset == r.Offset, nil
		}
		return false, c.db.checkSuspect(hit)
	case segment.KindDelete:
		return c.oldest < r.Seq, nil // sabotage: keep-tombstone
	case segment.KindWatermark:
		return false, nil
	}
	return true, nil // of a newer version, which knows what it is for
}

// checkSuspect verifies a record if its segment is known to be damaged. The
// caller holds compactor.mu.
func (db *DB) checkSuspect(hit index.Hit) error {
	if db.compactor.suspect[hit.Segment.ID()] == nil {
		return nil
	}
	r, err := hit.Segment.Read(hit.Offset)
	if err == nil {
		err = r.VerifyValue()
	}
	runtime.KeepAlive(hit.Segment)
	return err
}

// copy appends a verified copy of the record.
func (c *compaction) copy(in *segment.Segment, r *segment.Record) error {
	if err := r.VerifyValue(); err != nil { // sabotage: verify-copied
		return in.Damage(r.Offset, fmt.Sprintf("key %q: %v", r.Key, err))
	}
	w, err := c.output(segment.CopySize(r))
	if err != nil {
		return err
	}
	if r.Kind == segment.KindBlobRef {
		if err := c.db.blobs.hold(w.Segment(), r, in.Store()); err != nil {
			return err
		}
		c.kept = append(c.kept, *r)
	}
	c.written += r.End - r.Offset
	copied := *r
	if err := w.AppendCopy(&copied, c.may); err != nil {
		return err
	}
	size := copied.End - copied.Offset
	switch r.Kind {
	case segment.KindPut, segment.KindBlobRef:
		c.moves = append(c.moves, move{in.Ref(r.Offset), w.Segment().Ref(copied.Offset)})
	case segment.KindDelete:
		c.db.index.CountUnnamed(w.Segment(), size, 0)
	default:
		c.db.index.CountUnnamed(w.Segment(), 0, size)
	}
	return nil
}

// output returns a segment with room for a record.
func (c *compaction) output(size int64) (*segment.Writer, error) {
	if n := len(c.outputs); n > 0 {
		if w := c.outputs[n-1]; w.Fits(size) {
			return w, nil
		}
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	left := max(size, c.size()-c.passed)
	w, err := c.db.makeSegment(segment.HeaderSize + min(max(c.db.segmentSize()-segment.HeaderSize, size), left))
	if err == nil {
		c.outputs = append(c.outputs, w)
	}
	return w, err
}

// flush writes what is staged, and now and then syncs it. What is on its way to
// the disk by then need not be waited for, neither here nor by others.
func (c *compaction) flush() error {
	if len(c.outputs) == 0 {
		return nil
	}
	w := c.outputs[len(c.outputs)-1]
	if err := w.Flush(c.may); err != nil {
		return err
	}
	if c.written < c.synced+syncStep {
		return w.Writeback()
	}
	c.synced = c.written
	return w.Sync()
}

// commit makes the copies take the place of the inputs:
//
//  1. the outputs are read back and made durable; readers can see them already
//  2. barrier: whatever made a record look dead must be as durable as the
//     manifest edit that removes it, so the active segment is synced
//  3. the manifest gets outputs for inputs
//  4. index entries move over, where they still name the old record
//  5. readers lose the inputs, the files are unlinked
func (c *compaction) commit() error {
	for _, w := range c.outputs {
		if err := errors.Join(readBack(w), w.Trim(), w.Sync()); err != nil { // sabotage: sync-output
			return err
		}
	}
	if err := c.db.Sync(); err != nil { // sabotage: sync-before-edit
		return err
	}
	if err := c.editManifest(); err != nil {
		return err
	}
	c.made, c.outputs = len(c.outputs), nil // there is no way back
	if err := c.moveOver(); err != nil {
		c.db.poison(fmt.Errorf("a compaction was cut off: %w", err)) // sabotage: poison-cut-compaction
		return err
	}
	for _, in := range c.inputs {
		c.db.retire(in.ID())
	}
	return nil
}

// readBack makes sure that the heads of what was written are what is read. Values
// are verified when they are read, as ever.
func readBack(w *segment.Writer) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	var tally segment.Tally
	seg := w.Segment()
	for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
		if err != nil {
			return err
		}
		tally.Add(&r)
	}
	if tally != w.Tally() {
		return wrongTally(seg, tally, w.Tally())
	}
	return nil
}

// moveOver makes what is in memory agree with the new manifest. It fails if a
// copy can't be read any more, and then stops half-way: readers have all they
// had, but nobody can tell what may be removed.
func (c *compaction) moveOver() (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	c.countBlobs() // sabotage: repoint-before-retire
	return c.repoint()
}

// editManifest is DB.editManifest for somebody who does not hold DB.write.
func (c *compaction) editManifest() error {
	err := c.db.manifests.EditAndPrepare(c.edit)
	if err != nil && !c.db.manifests.OutcomeKnown() {
		c.db.poison(err)
	}
	return err
}

// poison stops writing.
func (db *DB) poison(err error) {
	db.write.Lock()
	defer db.write.Unlock()
	db.writer.poison = err
}

// edit replaces the inputs in the manifest, which lists segments by the age
// of their records. The active segment's durable length goes with it: a
// follower may only lose the inputs together with seeing what superseded
// their records.
func (c *compaction) edit(m *manifest.List) {
	place := slices.IndexFunc(m.Segments, func(e manifest.Entry) bool { return c.isInput(e.ID) })
	m.Segments = slices.DeleteFunc(m.Segments, func(e manifest.Entry) bool { return c.isInput(e.ID) })
	for i, w := range c.outputs {
		seg := w.Segment()
		m.NextID = max(m.NextID, seg.ID()+1)
		m.Segments = slices.Insert(m.Segments, place+i, manifest.Entry{ID: seg.ID(), Length: seg.Len(), Salt: seg.Salt(), Tally: w.Tally()})
	}
	if e := m.Active(); e != nil {
		e.Length = c.db.index.Segments().Find(e.ID).Synced()
	}
}

// countBlobs notes which blobs the manifest's segments name now. One that only
// the inputs named goes with them.
func (c *compaction) countBlobs() {
	for i := range c.kept {
		c.db.blobs.count(&c.kept[i], 1) // sabotage: count-copied-blobs
	}
	for i := range c.left {
		c.db.blobs.count(&c.left[i], -1)
		c.freed += c.left[i].ValueSize()
	}
	for i := range c.kept {
		c.freed -= c.kept[i].ValueSize()
	}
}

// repoint moves the index entries, a few at a time, since writers wait for
// each step, and whoever waits for a processor for all of them.
func (c *compaction) repoint() error {
	segs := c.db.index.Segments()
	list := make([]index.Move, 0, min(repointStep, len(c.moves)))
	for i, m := range c.moves {
		r, err := segs.At(m.to).Read()
		if err != nil {
			return err // under another key the old record would go on being named
		}
		list = append(list, index.Move{Key: r.Key, Old: m.from, New: m.to, Size: r.End - r.Offset})
		if len(list) == repointStep || i == len(c.moves)-1 {
			c.db.index.Repoint(list)
			list = list[:0]
			runtime.Gosched()
		}
	}
	c.db.index.Repoint(nil) // nothing waits for the ordered index any more
	runtime.KeepAlive(segs)
	return nil
}

// discard takes the outputs back, unless the manifest may name them.
func (c *compaction) discard() {
	for _, w := range c.outputs {
		w.Trim() // at once: a reader that holds the segment keeps the file
		c.db.discard(w.Segment())
	}
	c.outputs = nil
	c.giveBack()
}
