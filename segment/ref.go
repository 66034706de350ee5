package segment

// A Ref says where a record begins, in 40 bits, so that an index entry can be
// one word:
//
//	39        25 24                 0
//	+-----------+-------------------+
//	| slot (15) | offset / 8 (25)   |
//	+-----------+-------------------+
//
// The slot stands for a segment that is open in this process. Refs are never
// stored. The zero Ref is no record, since a file begins with its header.
type Ref uint64

const (
	// RefBits is the width of a Ref.
	RefBits = slotBits + offsetBits
	// MaxSlots bounds the number of segments open at a time.
	MaxSlots = 1 << slotBits
	// MaxStart bounds the offset at which a record may begin.
	MaxStart = 1 << (offsetBits + 3)

	// MaxBatchBytes bounds the encoded records of a batch, which lie in one
	// segment.
	MaxBatchBytes = 64 << 20

	slotBits   = 15
	offsetBits = 25
)

// MakeRef packs a slot and the offset of a record, which is a multiple of 8
// below MaxStart.
func MakeRef(slot int, off int64) Ref {
	return Ref(uint64(slot)<<offsetBits | uint64(off)>>3)
}

// Slot is the segment's place in the slot table.
func (r Ref) Slot() int { return int(r >> offsetBits & (MaxSlots - 1)) }

// Offset is where the record begins in its segment file, in bytes.
func (r Ref) Offset() int64 { return int64(r&(1<<offsetBits-1)) << 3 }
