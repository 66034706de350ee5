package segment

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path/filepath"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Tally is what the manifest knows about the records of a segment. Watermarks
// don't count.
type Tally struct {
	Records        uint64
	MinSeq, MaxSeq uint64 // 0 if there are no records
	Sum            uint64 // over the header checksums, in order
}

// Add counts a record.
func (t *Tally) Add(r *Record) {
	if r.Kind == KindWatermark {
		return
	}
	if t.Records == 0 || r.Seq < t.MinSeq {
		t.MinSeq = r.Seq
	}
	t.MaxSeq = max(t.MaxSeq, r.Seq)
	t.Records++
	t.Sum = bits.RotateLeft64(t.Sum, 1) ^ r.hsum
}

const (
	reserveStep   = 4 << 20 // disk blocks are set aside this many bytes ahead
	writebackStep = 512 << 10
	copyBelow     = 4 << 10 // shorter values are copied into the write buffer
	maxKeptBuffer = 1 << 20
)

// Writer appends to a segment file. It belongs to one goroutine. Records go
// through three steps: Append stages them in memory, Write hands all staged
// ones to the kernel, Sync makes them durable. After an error of Write or Sync
// the Writer is of no more use: nobody knows what lies behind the last sync,
// so nothing may ever be appended there. A failed Reserve has written nothing;
// the staged records can be discarded.
type Writer struct {
	seg      *Segment
	reserved int64
	begun    int64 // what the disk was told to begin with ends here

	written   int64 // handed to the kernel
	tally     Tally // of the records written
	marked    int64 // the largest durableTo written
	records   int64 // end of the last one that is not a watermark
	stagedEnd int64 // the same, of those written and staged

	staged  int64 // end of the staged records
	pending Tally // of the records written and staged
	buf     []byte
	values  []heldValue
}

// heldValue is a value that is written from the caller's memory: it belongs
// behind the first at bytes of the buffer.
type heldValue struct {
	at    int
	bytes []byte
}

// Create makes a new segment file with its header, synced, and its name too.
// capacity bounds its length in bytes, at most MaxStart.
func Create(fsys vfs.FS, id ID, store StoreID, epoch uint32, capacity int64) (*Segment, *Writer, error) {
	if capacity > MaxStart {
		return nil, nil, fmt.Errorf("segment of %d bytes, the limit is %d", capacity, MaxStart)
	}
	h := Header{Magic: MagicSegment, Store: store, File: uint64(id), Salt: RandomSalt(), Epoch: epoch}
	file, err := fsys.Create(id.FileName())
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(fsys.Path(), id.FileName())
	seg, err := create(fsys, file, path, h, capacity)
	if err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("create %s: %w", path, errors.Join(err, fsys.Remove(id.FileName())))
	}
	w := &Writer{seg: seg, written: HeaderSize, staged: HeaderSize}
	return seg, w, nil
}

func create(fsys vfs.FS, file vfs.File, path string, h Header, capacity int64) (*Segment, error) {
	if err := WriteAll(file, [][]byte{AppendHeader(nil, h)}, 0); err != nil {
		return nil, err
	}
	if err := file.Datasync(); err != nil { // sabotage: sync-new-segment
		return nil, err
	}
	if err := fsys.SyncDir(); err != nil { // sabotage: name-new-segment
		return nil, err
	}
	m, err := file.Map(capacity)
	if err != nil {
		return nil, err
	}
	return newSegment(ID(h.File), h, file, path, m, HeaderSize), nil
}

// Segment is what is being written.
func (w *Writer) Segment() *Segment { return w.seg }

// Tally counts the records written so far.
func (w *Writer) Tally() Tally { return w.tally }

// Staged is the number of bytes that wait for Write.
func (w *Writer) Staged() int64 { return w.staged - w.written }

// Unmarked reports whether there are synced records of which no record says
// that they are.
func (w *Writer) Unmarked() bool { return w.marked < min(w.records, w.seg.synced.Load()) }

// HalfFull reports whether more than half of the segment is taken, with size
// more bytes.
func (w *Writer) HalfFull(size int64) bool { return 2*(w.staged+size) > int64(len(w.seg.mem)) }

// Fits reports whether size more bytes (see MaxRecordSize) may be staged.
func (w *Writer) Fits(size int64) bool { return w.staged+size <= int64(len(w.seg.mem)) }

// Append stages a record and sets its Offset, End and DurableTo. The record's
// memory must stay as it is until Write returns.
func (w *Writer) Append(r *Record) {
	r.Offset = w.staged
	r.End = w.staged + r.size(w.staged)
	if r.Flags&FlagCopied == 0 {
		r.DurableTo = w.seg.synced.Load() // sabotage: durable-to
	}
	w.buf = r.appendHead(w.buf, r.Offset, w.seg.header.Salt)
	w.appendValue(r.Value)
	for _, piece := range r.rest {
		w.appendValue(piece)
	}
	w.buf = r.appendTail(w.buf, r.Offset)
	w.staged = r.End
	w.pending.Add(r)
	if r.Kind != KindWatermark {
		w.stagedEnd = r.End
	}
}

func (w *Writer) appendValue(p []byte) {
	if len(p) < copyBelow {
		w.buf = append(w.buf, p...)
	} else {
		w.values = append(w.values, heldValue{len(w.buf), p})
	}
}

// Reserve sets disk blocks aside for the staged records and for so many bytes
// behind them, as far as the segment may get. This is where a full disk shows,
// while nothing has been written yet. may, unless it is nil, tells whether so
// many more bytes may be set aside; it is asked when there is need.
func (w *Writer) Reserve(behind int64, may func(int64) error) error {
	capacity := int64(len(w.seg.mem))
	need := min(w.staged+behind, capacity)
	if w.reserved >= need {
		return nil
	}
	ahead := min(max(need, w.reserved+reserveStep), capacity)
	err := w.reserveTo(ahead, may)
	if err != nil && ahead > need {
		err = w.reserveTo(need, may)
	}
	return err
}

// ReserveStaged is Reserve for the staged records alone. What is left of the
// segment then takes nothing, so that many small segments need no more room than
// one that is large.
func (w *Writer) ReserveStaged(may func(int64) error) error {
	if w.reserved >= w.staged {
		return nil
	}
	return w.reserveTo(w.staged, may)
}

func (w *Writer) reserveTo(end int64, may func(int64) error) (err error) {
	n := end - w.reserved
	if may != nil {
		err = may(n)
	}
	if err == nil {
		err = w.seg.file.Reserve(w.reserved, n)
	}
	if err != nil {
		return fmt.Errorf("reserve %d bytes of %s at offset %d: %w", n, w.seg.path, w.reserved, err)
	}
	w.reserved = end
	return nil
}

// Discard forgets the staged records.
func (w *Writer) Discard() {
	w.staged, w.pending, w.stagedEnd = w.written, w.tally, w.records
	w.dropBuffers()
}

// Write hands the staged records to the kernel and to readers of the mapping.
func (w *Writer) Write() error {
	if err := WriteAll(w.seg.file, w.vector(), w.written); err != nil {
		return fmt.Errorf("write %s at offset %d: %w", w.seg.path, w.written, err)
	}
	if err := w.seg.m.Refresh(w.written, w.staged); err != nil {
		return err
	}
	w.written, w.tally, w.records = w.staged, w.pending, w.stagedEnd
	w.marked = w.seg.synced.Load() // records are stamped when staged, and nothing was synced since
	w.seg.end.Store(w.written)
	w.dropBuffers()
	return nil
}

// Writeback has the disk begin with what is written, if that is enough to be
// worth it, so that Sync has less to wait for. The last page is left out: more
// may be written to it.
func (w *Writer) Writeback() error {
	end := w.written &^ (Alignment - 1)
	if end < w.begun+writebackStep {
		return nil
	}
	if err := w.seg.file.Writeback(w.begun, end-w.begun); err != nil {
		return fmt.Errorf("write %s at offset %d: %w", w.seg.path, w.begun, err)
	}
	w.begun = end
	return nil
}

// Sync makes everything written durable. It is never tried twice.
func (w *Writer) Sync() error {
	if err := w.seg.file.Datasync(); err != nil { // sabotage: sync-segment
		return fmt.Errorf("sync %s: %w", w.seg.path, err)
	}
	w.seg.synced.Store(w.written)
	return nil
}

// Trim gives back the disk blocks set aside behind the end.
func (w *Writer) Trim() error { return w.seg.file.Trim() }

// vector is the staged bytes in order.
func (w *Writer) vector() [][]byte {
	vec := make([][]byte, 0, 2*len(w.values)+1)
	from := 0
	for _, v := range w.values {
		vec = append(vec, w.buf[from:v.at], v.bytes)
		from = v.at
	}
	if from < len(w.buf) {
		vec = append(vec, w.buf[from:])
	}
	return vec
}

func (w *Writer) dropBuffers() {
	clear(w.values)
	w.values = w.values[:0]
	w.buf = w.buf[:0]
	if cap(w.buf) > maxKeptBuffer {
		w.buf = nil
	}
}

// WriteAll writes the buffers at off and repeats short writes.
func WriteAll(f vfs.File, vec [][]byte, off int64) error {
	for vec = advance(vec, 0); len(vec) > 0; {
		n, err := f.WriteVec(vec, off)
		if err != nil {
			return err
		}
		if n <= 0 {
			return io.ErrShortWrite
		}
		off += int64(n) // sabotage: whole-write
		vec = advance(vec, n)
	}
	return nil
}

// advance drops the first n bytes of the vector, and buffers that are empty.
func advance(vec [][]byte, n int) [][]byte {
	for len(vec) > 0 && n >= len(vec[0]) {
		n -= len(vec[0])
		vec = vec[1:]
	}
	if n > 0 {
		return append([][]byte{vec[0][n:]}, vec[1:]...)
	}
	return vec
}
