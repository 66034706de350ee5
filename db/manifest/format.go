package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment"
)

// A manifest file holds the same image twice, the second one at half the
// length of the file, so that a damaged sector takes away one of them only:
//
//	file header, 64 bytes
//	u32 length of the body, u32 flags: 1 repaired
//	body: u64 next id  u64 next seq  i64 expiry mark  u32 segments
//	      per segment u16 length of the entry, entry:
//	      u64 id  u8 state  u64 length  u64 capacity  u64 salt
//	      u64 records  u64 min seq  u64 max seq  u64 sum over header sums
//	u64 xxhash64 of all before
//	zero bytes to a multiple of 4096
const (
	page       = 4096
	prefixSize = segment.HeaderSize + 8
	fixedSize  = 28
	entrySize  = 65

	flagRepaired = 1

	// MaxSegmentBytes bounds where records of a segment can end.
	MaxSegmentBytes = segment.MaxStart + segment.MaxBatchBytes

	stateActive = 1
	stateSealed = 2
)

func (m *List) encode() []byte {
	le := binary.LittleEndian
	b := segment.AppendHeader(nil, segment.Header{
		Magic: segment.MagicManifest, Store: m.Store, File: m.Generation, Epoch: m.Epoch,
	})
	b = le.AppendUint32(b, uint32(fixedSize+len(m.Segments)*(2+entrySize)))
	b = le.AppendUint32(b, m.flags())
	b = le.AppendUint64(b, uint64(m.NextID))
	b = le.AppendUint64(b, m.NextSeq)
	b = le.AppendUint64(b, uint64(m.ExpiryMark))
	b = le.AppendUint32(b, uint32(len(m.Segments)))
	for i := range m.Segments {
		b = m.Segments[i].append(b)
	}
	b = le.AppendUint64(b, xxhash.Sum64(b))
	b = append(b, make([]byte, -len(b)&(page-1))...)
	return append(b, b...)
}

func (m *List) flags() uint32 {
	if m.Repaired {
		return flagRepaired
	}
	return 0
}

func (e *Entry) append(b []byte) []byte {
	le := binary.LittleEndian
	state := byte(stateSealed)
	if e.Active {
		state = stateActive
	}
	b = le.AppendUint16(b, entrySize)
	b = le.AppendUint64(b, uint64(e.ID))
	b = append(b, state)
	for _, v := range []uint64{
		uint64(e.Length), uint64(e.Capacity), e.Salt,
		e.Tally.Records, e.Tally.MinSeq, e.Tally.MaxSeq, e.Tally.Sum,
	} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// decode reads a manifest file, from whichever of its images is whole.
func decode(b []byte, generation uint64) (*List, error) {
	m, err := DecodeImage(b, generation)
	if err == nil || errors.Is(err, segment.ErrNewer) {
		return m, err
	}
	if m, err2 := DecodeImage(b[len(b)/2:], generation); err2 == nil { // sabotage: second-image
		return m, nil
	}
	return nil, err
}

// DecodeImage reads one image of a generation.
func DecodeImage(b []byte, generation uint64) (*List, error) {
	h, err := segment.DecodeHeader(b, segment.MagicManifest)
	if err != nil {
		return nil, err
	}
	if h.File != generation {
		return nil, fmt.Errorf("generation %d under the name of %d", h.File, generation)
	}
	if len(b) < prefixSize {
		return nil, errors.New("manifest cut off")
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(b[segment.HeaderSize:]))
	if n < fixedSize || prefixSize+n+8 > int64(len(b)) {
		return nil, errors.New("manifest cut off")
	}
	if xxhash.Sum64(b[:prefixSize+n]) != le.Uint64(b[prefixSize+n:]) {
		return nil, errors.New("manifest checksum")
	}
	m := &List{Store: h.Store, Generation: generation, Epoch: h.Epoch}
	m.Repaired = le.Uint32(b[segment.HeaderSize+4:])&flagRepaired != 0
	return m, m.decodeBody(b[prefixSize : prefixSize+n])
}

// decodeBody reads a body whose checksum was right.
func (m *List) decodeBody(b []byte) error {
	le := binary.LittleEndian
	m.NextID = segment.ID(le.Uint64(b))
	m.NextSeq = le.Uint64(b[8:])
	m.ExpiryMark = int64(le.Uint64(b[16:]))
	count := le.Uint32(b[24:])
	if m.NextSeq-1 > segment.MaxSeq {
		return fmt.Errorf("manifest: next sequence number %d", m.NextSeq)
	}
	b = b[fixedSize:]
	for range count {
		if len(b) < 2 || len(b) < 2+int(le.Uint16(b)) || le.Uint16(b) < entrySize {
			return errors.New("manifest entry cut off")
		}
		n := 2 + int(le.Uint16(b))
		e, err := decodeEntry(b[2:n])
		if err != nil {
			return err
		}
		if m.Entry(e.ID) != nil || e.ID >= m.NextID {
			return fmt.Errorf("manifest names %s wrongly", e.ID.FileName())
		}
		if !e.Active && e.Tally.MaxSeq >= m.NextSeq {
			return fmt.Errorf("manifest: %s has record %d, which is still to come", e.ID.FileName(), e.Tally.MaxSeq)
		}
		m.Segments = append(m.Segments, e)
		b = b[n:]
	}
	if len(b) > 0 {
		return fmt.Errorf("manifest has %d bytes behind its entries", len(b))
	}
	return nil
}

func decodeEntry(b []byte) (e Entry, err error) {
	le := binary.LittleEndian
	e.ID, e.Active = segment.ID(le.Uint64(b)), b[8] == stateActive
	field := func(i int) uint64 { return le.Uint64(b[9+8*i:]) }
	e.Length, e.Capacity, e.Salt = int64(field(0)), int64(field(1)), field(2)
	e.Tally = segment.Tally{Records: field(3), MinSeq: field(4), MaxSeq: field(5), Sum: field(6)}
	if e.Length < segment.HeaderSize || e.Length > MaxSegmentBytes || e.Capacity < 0 || e.Capacity > MaxSegmentBytes {
		err = fmt.Errorf("manifest: length of %s out of bounds", e.ID.FileName())
	}
	if e.Active && e.Capacity < e.Length {
		err = fmt.Errorf("manifest: %s is longer than it may get", e.ID.FileName())
	}
	return e, err
}

// Padding is what follows an image that can be read.
func Padding(image []byte) []byte {
	n := prefixSize + int64(binary.LittleEndian.Uint32(image[segment.HeaderSize:])) + 8
	return image[min(n, int64(len(image))):]
}
