package segment

import (
	"encoding/binary"
	"errors"
)

// Tail is what recovery finds in the segment that was being written when the
// store stopped.
type Tail struct {
	// Valid is the end of the last complete batch such that everything before
	// it verifies, values included.
	Valid int64

	// Proven is the offset up to which the file was once known to be synced:
	// the largest durableTo in any valid record, wherever it lies. Damage
	// below it is damage; at or above it, it is a torn tail.
	Proven int64

	// MaxSeq is the highest sequence number in any valid record, wherever it
	// lies. It must not be given out again.
	MaxSeq uint64

	// Newer is set if the batch at Valid is whole but needs a newer version.
	Newer error
}

func (t *Tail) note(durableTo int64, seq uint64) {
	t.Proven = max(t.Proven, durableTo)
	t.MaxSeq = max(t.MaxSeq, seq)
}

// scanBatches verifies complete batches from offset from on and stops at the
// first that does not verify or is not whole.
func scanBatches(data []byte, from int64, salt uint64) (t Tail) {
	t.Valid = from
	for {
		batch, ok := scanBatch(data, t.Valid, salt)
		if !ok {
			t.Newer = batch.Newer
			return t
		}
		t.Valid = batch.Valid
		t.note(batch.Proven, batch.MaxSeq)
	}
}

// scanBatch verifies the batch at off: the first record says how many follow,
// and the numbers of all of them are consecutive.
func scanBatch(data []byte, off int64, salt uint64) (t Tail, ok bool) {
	first, err := decode(data, off, salt)
	if errors.Is(err, ErrNewer) {
		t.Newer = err
	}
	if err != nil || first.Flags&FlagFirst == 0 || first.VerifyValue() != nil { // sabotage: verify-tail
		return t, false
	}
	t.Valid = first.End
	t.note(first.DurableTo, first.Seq)
	for i := uint16(1); i <= first.Left; i++ {
		r, err := decode(data, t.Valid, salt)
		if err != nil || r.Flags&FlagFirst != 0 || r.Left != first.Left-i ||
			r.Seq != first.Seq+uint64(i) || r.VerifyValue() != nil {
			return t, false // sabotage: whole-batch
		}
		t.Valid = r.End
		t.note(r.DurableTo, r.Seq)
	}
	return t, true
}

// probe looks for valid records at every possible offset from off on. The
// seeded checksum makes a false find as good as impossible; the cheap tests
// before it keep the search fast.
func (t *Tail) probe(data []byte, off int64, salt uint64) {
	for ; off <= int64(len(data))-recordHead; off += alignment {
		if binary.LittleEndian.Uint64(data[off+8:]) > uint64(off) || !plausibleKind(data[off+28:]) {
			continue
		}
		if r, err := decode(data, off, salt); err == nil {
			t.note(r.DurableTo, r.Seq)
		}
	}
}

func plausibleKind(b []byte) bool {
	kind, flags := Kind(b[0]), Flags(b[1])
	return kind != 0 && (kind <= KindSeal || kind >= skippableKind) && flags&^knownFlags == 0
}
