package index

import (
	"fmt"
	"sync/atomic"

	"github.com/crowfly/crowfly/segment"
)

const (
	slotsPerChunk = 256
	slotChunks    = segment.MaxSlots / slotsPerChunk
)

// slotTable finds the memory of a segment by its slot, without a lock. It has
// two levels, so that a store with few segments pays for few.
//
// An entry is the bare memory, with what it takes to prove a record in it, and keeps no Segment alive: if it did, no
// segment could ever go. So whoever looks at the record behind a Ref this way
// knows for another reason that the Segment is alive: because the store's
// current state has it, or the state that belongs to a clone of the ordered
// index.
type slotTable [slotChunks]atomic.Pointer[slotChunk]

type slotChunk [slotsPerChunk]atomic.Pointer[held]

// held is what the table knows of a segment.
type held struct {
	mem  []byte
	salt uint64
	path string
}

func (t *slotTable) held(slot int) *held {
	chunk := t[slot/slotsPerChunk].Load()
	if chunk == nil {
		return nil
	}
	return chunk[slot%slotsPerChunk].Load()
}

// memory of the segment in a slot, nil if the slot is free.
func (t *slotTable) memory(slot int) []byte {
	if h := t.held(slot); h != nil {
		return h.mem
	}
	return nil
}

// prove verifies the record behind a ref but for its value.
func (t *slotTable) prove(ref segment.Ref) error {
	h := t.held(ref.Slot())
	return segment.ProveAt(h.mem, ref.Offset(), h.salt, h.path)
}

// stub of the record behind a ref.
func (t *slotTable) stub(ref segment.Ref) (segment.Stub, bool) {
	return segment.StubAt(t.memory(ref.Slot()), ref.Offset())
}

// key of the record behind a ref. A damaged length reads as the empty key: the
// order is then wrong somewhere, and verifying the record finds the damage.
func (t *slotTable) key(ref segment.Ref) []byte {
	mem := t.memory(ref.Slot())
	if mem == nil {
		panic(fmt.Sprintf("index: slot %d is free and still referred to", ref.Slot()))
	}
	key, _ := segment.KeyAt(mem, ref.Offset())
	return key
}

// size of the record behind a ref, 0 if it is damaged.
func (t *slotTable) size(ref segment.Ref) int64 {
	size, ok := segment.SizeAt(t.memory(ref.Slot()), ref.Offset())
	if !ok {
		return 0
	}
	return size
}

// take puts a segment into the lowest free slot. Only one goroutine takes at a
// time; slots may become free meanwhile.
func (t *slotTable) take(h *held) (slot int, ok bool) {
	for i := range t {
		chunk := t[i].Load()
		if chunk == nil {
			chunk = new(slotChunk)
			t[i].Store(chunk)
		}
		for j := range chunk {
			if chunk[j].CompareAndSwap(nil, h) {
				return i*slotsPerChunk + j, true
			}
		}
	}
	return 0, false
}

// lease is a slot that is taken.
type lease struct {
	table *slotTable
	slot  int
}

// release frees a slot. It runs when the Segment is unreachable.
func release(l lease) {
	l.table[l.slot/slotsPerChunk].Load()[l.slot%slotsPerChunk].Store(nil)
}
