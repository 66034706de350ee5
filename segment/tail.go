package segment

import "encoding/binary"

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
}

// scanBatches verifies complete batches from offset from on and stops at the
// first that does not verify or is not whole.
func scanBatches(data []byte, from int64, salt uint64) (t Tail) {
	t.Valid = from
	for {
		end, durableTo, ok := scanBatch(data, t.Valid, salt)
		if !ok {
			return t
		}
		t.Valid = end
		t.Proven = max(t.Proven, durableTo)
	}
}

// scanBatch verifies the batch at off: the first record says how many follow,
// and the numbers of all of them are consecutive.
func scanBatch(data []byte, off int64, salt uint64) (end, durableTo int64, ok bool) {
	first, err := decode(data, off, salt)
	if err != nil || first.Flags&FlagFirst == 0 || first.VerifyValue() != nil {
		return 0, 0, false
	}
	end, durableTo = first.End, first.DurableTo
	for i := uint16(1); i <= first.Left; i++ {
		r, err := decode(data, end, salt)
		if err != nil || r.Flags&FlagFirst != 0 || r.Left != first.Left-i ||
			r.Seq != first.Seq+uint64(i) || r.VerifyValue() != nil {
			return 0, 0, false
		}
		end, durableTo = r.End, max(durableTo, r.DurableTo)
	}
	return end, durableTo, true
}

// probe looks for valid records at every possible offset from off on and
// returns the largest durableTo among them. The seeded checksum makes a false
// find as good as impossible; the cheap tests before it keep the search fast.
func probe(data []byte, off int64, salt uint64) (durableTo int64) {
	for ; off <= int64(len(data))-recordHead; off += alignment {
		claimed := binary.LittleEndian.Uint64(data[off+8:])
		if claimed <= uint64(durableTo) || claimed > uint64(off) || !plausibleKind(data[off+28:]) {
			continue
		}
		if r, err := decode(data, off, salt); err == nil {
			durableTo = r.DurableTo
		}
	}
	return durableTo
}

func plausibleKind(b []byte) bool {
	kind, flags := Kind(b[0]), Flags(b[1])
	return kind != 0 && (kind <= KindSeal || kind >= skippableKind) && flags&^knownFlags == 0
}
