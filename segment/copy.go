package segment

import "fmt"

// copyStep is how many bytes of copies are staged before they are written.
const copyStep = 1 << 20

// CopySize bounds the bytes that a copy of a record takes. The padding of an
// aligned value depends on where the copy lies.
func CopySize(r *Record) int64 {
	size := r.End - r.Offset
	if r.Flags&FlagAligned != 0 {
		size += Alignment
	}
	return size
}

// AppendCopy stages a record of another segment, with its sequence number and
// checksum, and calls Flush once 1 MiB is staged. may is that of Reserve.
func (w *Writer) AppendCopy(r *Record, may func(int64) error) error {
	r.Flags |= FlagFirst | FlagCopied
	r.Left, r.DurableTo = 0, 0
	if !w.Fits(CopySize(r)) {
		return fmt.Errorf("no room in %s for a record of %d bytes", w.Segment().Path(), r.End-r.Offset)
	}
	w.Append(r)
	if w.Staged() < copyStep {
		return nil
	}
	return w.Flush(may)
}

// Flush reserves disk blocks for what is staged and writes it. may is that of
// Reserve.
func (w *Writer) Flush(may func(int64) error) error {
	if err := w.ReserveStaged(may); err != nil { // sabotage: reserve-staged
		return err
	}
	return w.Write()
}
