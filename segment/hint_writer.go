package segment

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/crowfly/crowfly/segment/vfs"
)

// hintItem is a record that may get an entry. It is small and has no pointers,
// since a segment may have millions.
type hintItem struct {
	window uint64 // the 8 bytes of the key behind what all keys share
	start  uint32 // offset of the record / 8
}

func (it hintItem) offset() int64 { return int64(it.start) * alignment }

// hintWriter writes the hint of one segment.
type hintWriter struct {
	seg     *Segment
	file    vfs.File
	common  []byte // what all keys begin with
	items   []hintItem
	extents []HintExtent
	footer  hintFooter
	readTo  int64 // end of the last record read

	out   []byte // staged
	off   int64  // where that belongs
	block int    // where the present block begins in out
	count uint32 // items in it
	last  []byte // key of the entry before in the block
}

// WriteHint writes the hint of a sealed segment into a new file. It reads the
// whole segment and proves every header on the way. If the records are not
// those of the tally, or one is damaged or can't be read, it returns a
// *CorruptError. The file is not synced.
func (s *Segment) WriteHint(file vfs.File, want Tally) (err error) {
	w := &hintWriter{seg: s, file: file, off: HeaderSize}
	// Nobody asked for all these pages to be read. One that can't be must not
	// end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if _, fault := p.(interface{ Addr() uintptr }); fault {
			err = s.Damage(w.readTo, "can't be read")
		} else if p != nil {
			panic(p)
		}
	}()
	if err := w.collect(); err != nil {
		return err
	}
	if w.footer.tally != want {
		return s.Damage(HeaderSize, fmt.Sprintf("holds records %+v, not %+v", w.footer.tally, want))
	}
	h := s.header
	h.Magic = MagicHint
	if err := WriteAll(file, [][]byte{AppendHeader(nil, h)}, 0); err != nil {
		return err
	}
	return w.write()
}

// collect reads the segment.
func (w *hintWriter) collect() error {
	for r, err := range w.seg.Records(HeaderSize, w.seg.Len()) {
		if err != nil {
			return err
		}
		w.readTo = r.End
		w.footer.tally.Add(&r)
		switch {
		case r.Kind == KindDelete:
			w.footer.tombstones += r.End - r.Offset
		case !r.Kind.Indexed() && r.Kind != KindWatermark:
			w.footer.newer += r.End - r.Offset
		}
		if !r.Kind.Indexed() {
			continue
		}
		if len(w.items) == 0 {
			w.common = r.Key
		}
		w.common = w.common[:sharedLen(w.common, r.Key)]
		w.items = append(w.items, hintItem{start: uint32(r.Offset / alignment)})
		if r.Kind == KindBlobRef {
			if err := w.noteExtents(&r); err != nil {
				return err
			}
		}
	}
	w.footer.length = w.seg.Len()
	w.sort()
	return nil
}

func (w *hintWriter) noteExtents(r *Record) error {
	if err := r.VerifyValue(); err != nil {
		return w.seg.corrupt(r.Offset, err)
	}
	list, _, err := DecodeBlobExtents(r.Value)
	if err != nil {
		return w.seg.corrupt(r.Offset, err)
	}
	for _, x := range list {
		w.extents = append(w.extents, HintExtent{r.Offset, x})
	}
	return nil
}

func sharedLen(a, b []byte) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// sort puts the items in the order of their keys, the newest of a key first.
// The bytes behind the common beginning decide most comparisons, so that few
// look at the segment.
func (w *hintWriter) sort() {
	for i := range w.items {
		var b [8]byte
		copy(b[:], w.stub(w.items[i]).Key[len(w.common):])
		w.items[i].window = binary.BigEndian.Uint64(b[:])
	}
	slices.SortFunc(w.items, func(a, b hintItem) int {
		if a.window != b.window {
			return cmp.Compare(a.window, b.window)
		}
		x, y := w.stub(a), w.stub(b)
		return cmp.Or(bytes.Compare(x.Key, y.Key), cmp.Compare(y.Seq, x.Seq), cmp.Compare(b.start, a.start))
	})
}

func (w *hintWriter) stub(it hintItem) Stub {
	stub, _ := w.seg.Stub(it.offset())
	return stub
}

// write writes everything behind the header.
func (w *hintWriter) write() error {
	var key []byte
	for i, it := range w.items {
		r, err := w.seg.Peek(it.offset())
		if err != nil {
			return err
		}
		if i > 0 && bytes.Equal(r.Key, key) {
			continue
		}
		key = r.Key
		if err := w.addEntry(&r); err != nil {
			return err
		}
	}
	w.endBlock()
	w.footer.extentsAt = w.off + int64(len(w.out))
	for i := range w.extents {
		if err := w.addExtent(&w.extents[i]); err != nil {
			return err
		}
	}
	w.endBlock()
	w.out = w.footer.append(w.out, w.off+int64(len(w.out)), w.seg.header.Salt)
	return w.flush()
}

func (w *hintWriter) addEntry(r *Record) error {
	if err := w.begin(hintEntryHead + len(r.Key)); err != nil {
		return err
	}
	shared := sharedLen(w.last, r.Key)
	w.out = append(w.out, byte(r.Kind), byte(r.Flags))
	for _, v := range []uint64{
		uint64(shared), uint64(len(r.Key) - shared),
		uint64(r.Offset / alignment), uint64((r.End - r.Offset) / alignment), r.Seq - w.footer.tally.MinSeq,
	} {
		w.out = binary.AppendUvarint(w.out, v)
	}
	if r.Flags&FlagExpiry != 0 {
		w.out = binary.LittleEndian.AppendUint64(w.out, uint64(r.Expiry))
	}
	w.out = append(w.out, r.Key[shared:]...)
	w.last = r.Key
	w.footer.entries++
	return nil
}

func (w *hintWriter) addExtent(x *HintExtent) error {
	if err := w.begin(hintExtentSize); err != nil {
		return err
	}
	w.out = binary.LittleEndian.AppendUint64(w.out, uint64(x.Offset))
	w.out = AppendBlobExtents(w.out, []BlobExtent{x.BlobExtent})
	w.footer.extents++
	return nil
}

// begin makes room for an item of at most size bytes in the block, or begins
// another.
func (w *hintWriter) begin(size int) error {
	if w.count > 0 && len(w.out)-w.block+size > hintBlock {
		w.endBlock()
	}
	if w.count == 0 {
		if len(w.out) >= hintStep {
			if err := w.flush(); err != nil {
				return err
			}
		}
		w.block, w.last = len(w.out), nil
		w.out = append(w.out, zeros[:hintHead]...)
	}
	w.count++
	return nil
}

// endBlock completes the block, if one has begun.
func (w *hintWriter) endBlock() {
	if w.count == 0 {
		return
	}
	le, b := binary.LittleEndian, w.out[w.block:]
	le.PutUint32(b[8:], uint32(len(b)-hintHead))
	le.PutUint32(b[12:], w.count)
	sum := headSum(b, w.off+int64(w.block), w.seg.header.Salt)
	le.PutUint64(b, sum)
	w.footer.sums = addHintSum(w.footer.sums, sum)
	w.count = 0
}

// flush writes what is staged.
func (w *hintWriter) flush() error {
	if err := WriteAll(w.file, [][]byte{w.out}, w.off); err != nil {
		return err
	}
	w.off += int64(len(w.out))
	w.out = w.out[:0]
	return nil
}
