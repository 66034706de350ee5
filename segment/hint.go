package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"path/filepath"

	"github.com/crowfly/crowfly/segment/vfs"
)

// A hint file tells an index what it must know of a sealed segment, so that
// nobody has to read the segment for it. It can be made again from the segment
// at any time, with the same bytes, and may be missing.
//
//	offset 0   +----------------------------+
//	           | file header, 64 bytes      |  file id and salt of the segment
//	offset 64  +----------------------------+
//	           | blocks of entries          |  the newest record of each key,
//	           |                            |  in the order of the keys
//	           +----------------------------+
//	           | blocks of extents          |  the blobs that any record names,
//	           |                            |  in the order of the records
//	           +----------------------------+
//	           | footer, 96 bytes           |
//	           +----------------------------+
//
// A block, and the footer too, begins with a checksum that is seeded like that
// of a record, with the salt of the file and the offset of the block:
//
//	 0 u64 sum     xxhash64 over all bytes of the block behind it
//	 8 u32 length  of the body, in bytes
//	12 u32 items   in the body
//	16 body
//
// An entry leaves out what its key shares with the one before it in the block:
//
//	0 u8 kind       1 u8 flags
//	2 varints: bytes shared, bytes left, offset of the record / 8, bytes it
//	  takes / 8, sequence number minus the least in the segment
//	. i64 expiry, unix milliseconds    if FlagExpiry
//	. the bytes left of the key
//
// An extent says which record names it:
//
//	0 u64 offset of the record
//	8 the extent, 32 bytes, see BlobExtent
//
// The footer binds the hint to what the manifest knows of the segment:
//
//	 0 u64 sum
//	 8 u64 length of the segment
//	16 u64 records  24 u64 min seq  32 u64 max seq  40 u64 sum    its Tally
//	48 u64 entries  56 u64 extents  64 u64 where the extents begin
//	72 u64 sum over the sums of all blocks
//	80 u64 bytes of tombstones, superseded ones too
//	88 u64 bytes of records whose kind may be skipped
const (
	hintHead       = 16
	hintBlock      = 16 << 10 // no block is larger, but for one with a long key
	hintEntryHead  = 2 + 5*binary.MaxVarintLen64 + expirySize
	hintBlockMost  = hintHead + hintEntryHead + MaxKey
	hintExtentSize = 8 + blobExtentSize
	hintFooterSize = 96
	hintStep       = 1 << 20 // bytes staged between two writes
)

// HintEntry is the newest record of a key in a segment.
type HintEntry struct {
	Key    []byte // valid until the next call of Next
	Seq    uint64
	Kind   Kind
	Flags  Flags
	Expiry int64 // unix milliseconds, if FlagExpiry
	Offset int64 // of the record in the segment
	Size   int64 // bytes the record takes there
}

// HintExtent is a blob that a record of the segment names.
type HintExtent struct {
	Offset int64 // of the record in the segment
	BlobExtent
}

// hintFooter is what comes last in the file.
type hintFooter struct {
	length     int64
	tally      Tally
	entries    uint64
	extents    uint64
	extentsAt  int64
	sums       uint64
	tombstones int64 // bytes
	newer      int64 // bytes of records that may be skipped
}

func (f *hintFooter) append(b []byte, off int64, salt uint64) []byte {
	le, start := binary.LittleEndian, len(b)
	for _, v := range []uint64{
		0, uint64(f.length), f.tally.Records, f.tally.MinSeq, f.tally.MaxSeq, f.tally.Sum,
		f.entries, f.extents, uint64(f.extentsAt), f.sums, uint64(f.tombstones), uint64(f.newer),
	} {
		b = le.AppendUint64(b, v)
	}
	le.PutUint64(b[start:], headSum(b[start:], off, salt))
	return b
}

func decodeHintFooter(b []byte, off int64, salt uint64) (f hintFooter, err error) {
	le := binary.LittleEndian
	if headSum(b, off, salt) != le.Uint64(b) { // sabotage: verify-hint-end
		return f, errHintSum
	}
	field := func(i int) uint64 { return le.Uint64(b[8*i:]) }
	f.length = int64(field(1))
	f.tally = Tally{Records: field(2), MinSeq: field(3), MaxSeq: field(4), Sum: field(5)}
	f.entries, f.extents, f.extentsAt, f.sums = field(6), field(7), int64(field(8)), field(9)
	f.tombstones, f.newer = int64(field(10)), int64(field(11))
	if f.extentsAt < HeaderSize || f.extentsAt > off ||
		f.tombstones < 0 || f.newer < 0 || f.tombstones > f.length || f.newer > f.length-f.tombstones {
		err = errHintForm
	}
	return f, err
}

var (
	errHintSum  = errors.New("checksum")
	errHintForm = errors.New("malformed")
)

// Hint is the hint of a segment, being read. It belongs to one goroutine and
// must be closed. It holds one block at a time.
//
// Whatever is wrong with it is no damage to the store. Entries read before an
// error were written by somebody who had read the segment and are as good as
// if there had been none.
type Hint struct {
	file   vfs.File
	path   string
	salt   uint64
	end    int64 // of the blocks
	footer hintFooter

	off    int64  // of the next block
	memory []byte // the block
	body   []byte // what is left of it
	items  uint32 // how many those are
	first  bool   // none of the block has been taken yet
	sums   uint64 // as in the footer
	seen   uint64 // entries
	entry  HintEntry
	err    error
}

// OpenHint opens the hint of a sealed segment. It fails unless the hint was
// made for exactly these records: same file, length and tally.
func OpenHint(fsys vfs.FS, s *Segment, want Tally) (*Hint, error) {
	file, err := fsys.Open(s.id.HintName())
	if err != nil {
		return nil, err
	}
	h := &Hint{file: file, path: filepath.Join(fsys.Path(), s.id.HintName()), salt: s.header.Salt, off: HeaderSize}
	if err := h.begin(s, want); err != nil {
		file.Close()
		return nil, err
	}
	return h, nil
}

func (h *Hint) begin(s *Segment, want Tally) error {
	header, err := checkHeader(h.file, h.path, MagicHint, s.id, s.header.Store)
	if err != nil {
		return err
	}
	size, err := h.file.Size()
	if err != nil {
		return err
	}
	if h.end = size - hintFooterSize; h.end < HeaderSize {
		return h.wrong(size, errHintForm)
	}
	var b [hintFooterSize]byte
	if err := h.readAt(b[:], h.end); err != nil {
		return err
	}
	if h.footer, err = decodeHintFooter(b[:], h.end, h.salt); err != nil {
		return h.wrong(h.end, err)
	}
	if header.Salt != h.salt || h.footer.length != s.Len() || h.footer.tally != want { // sabotage: hint-history
		return h.wrong(h.end, errors.New("made for another segment"))
	}
	return nil
}

// Close ends the use of the hint.
func (h *Hint) Close() error { return h.file.Close() }

// Entries is how many there are.
func (h *Hint) Entries() uint64 { return h.footer.entries }

// Unnamed is how many bytes the tombstones of the segment take, those included
// that a newer record in it has superseded, and the records whose kind only a
// newer version knows.
func (h *Hint) Unnamed() (tombstones, newer int64) { return h.footer.tombstones, h.footer.newer }

// Next moves on to the next entry. It returns false at the end, or if Err says
// that the hint is of no use.
func (h *Hint) Next() bool {
	for h.err == nil && h.items == 0 {
		if h.off == h.footer.extentsAt {
			if h.seen != h.footer.entries {
				h.err = h.wrong(h.off, errHintForm)
			}
			return false
		}
		h.err = h.readBlock(h.footer.extentsAt)
	}
	if h.err != nil {
		return false
	}
	if h.err = h.decodeEntry(); h.err != nil {
		h.err = h.wrong(h.off, h.err)
		return false
	}
	return true
}

// Entry is what Next has found.
func (h *Hint) Entry() *HintEntry { return &h.entry }

// Err tells why Next returned false, nil at the end.
func (h *Hint) Err() error { return h.err }

// Extents returns the blobs that the records of the segment name, dead ones
// too, once Next has come to the end. It fails if Next did.
func (h *Hint) Extents() (list []HintExtent, err error) {
	if h.err != nil {
		return nil, h.err
	}
	le := binary.LittleEndian
	for h.off < h.end {
		if err := h.readBlock(h.end); err != nil {
			return nil, err
		}
		if len(h.body) != int(h.items)*hintExtentSize {
			return nil, h.wrong(h.off, errHintForm)
		}
		for ; h.items > 0; h.items-- {
			x := HintExtent{Offset: int64(le.Uint64(h.body))}
			extents, _, err := DecodeBlobExtents(h.body[8:hintExtentSize])
			if err != nil || !h.within(x.Offset, recordHead) {
				return nil, h.wrong(h.off, errHintForm)
			}
			x.BlobExtent = extents[0]
			h.body = h.body[hintExtentSize:]
			list = append(list, x)
		}
	}
	if uint64(len(list)) != h.footer.extents || h.sums != h.footer.sums {
		return nil, h.wrong(h.off, errHintForm)
	}
	return list, nil
}

// readBlock reads the next block, which ends at end at the latest.
func (h *Hint) readBlock(end int64) error {
	if h.off > end-hintHead {
		return h.wrong(h.off, errHintForm)
	}
	b, err := h.fetch(int(min(hintBlock, end-h.off)))
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	size := hintHead + int64(le.Uint32(b[8:]))
	if size > hintBlockMost || size > end-h.off {
		return h.wrong(h.off, errHintForm)
	}
	if size > int64(len(b)) {
		if b, err = h.fetch(int(size)); err != nil {
			return err
		}
	}
	b = b[:size]
	sum := le.Uint64(b)
	if headSum(b, h.off, h.salt) != sum { // sabotage: verify-hint-block
		return h.wrong(h.off, errHintSum)
	}
	h.sums = addHintSum(h.sums, sum)
	h.body, h.items = b[hintHead:], le.Uint32(b[12:])
	if h.items == 0 {
		return h.wrong(h.off, errHintForm)
	}
	h.first = true
	h.off += size
	return nil
}

func addHintSum(sums, sum uint64) uint64 { return bits.RotateLeft64(sums, 1) ^ sum }

// fetch reads n bytes from the next block on into memory.
func (h *Hint) fetch(n int) ([]byte, error) {
	if cap(h.memory) < n {
		h.memory = make([]byte, n)
	}
	b := h.memory[:n]
	return b, h.readAt(b, h.off)
}

func (h *Hint) readAt(b []byte, off int64) error {
	n, err := h.file.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %s: %w", h.path, err)
}

// decodeEntry takes the next entry from the block.
func (h *Hint) decodeEntry() error {
	if len(h.body) < 2 {
		return errHintForm
	}
	e, b := &h.entry, h.body[2:]
	e.Kind, e.Flags = Kind(h.body[0]), Flags(h.body[1])
	var v [5]uint64
	for i := range v {
		n := 0
		if v[i], n = binary.Uvarint(b); n <= 0 {
			return errHintForm
		}
		b = b[n:]
	}
	if e.Expiry = 0; e.Flags&FlagExpiry != 0 {
		if len(b) < expirySize {
			return errHintForm
		}
		e.Expiry = int64(binary.LittleEndian.Uint64(b))
		b = b[expirySize:]
	}
	shared, left := v[0], v[1]
	if h.first && shared > 0 || shared > uint64(len(e.Key)) || left > uint64(len(b)) || shared+left > MaxKey ||
		bytes.Compare(b[:left], e.Key[shared:]) <= 0 {
		return errHintForm
	}
	e.Key = append(e.Key[:shared], b[:left]...)
	h.body, h.first = b[left:], false
	if h.items--; (h.items == 0) != (len(h.body) == 0) {
		return errHintForm
	}
	h.seen++
	return h.place(v[2], v[3], v[4])
}

// place sets where the record of the entry lies, within the bounds of the
// segment.
func (h *Hint) place(off, size, seq uint64) error {
	e, t := &h.entry, &h.footer.tally
	if off >= MaxStart/alignment || size > uint64(h.footer.length) || seq > t.MaxSeq-t.MinSeq {
		return errHintForm
	}
	e.Offset, e.Size, e.Seq = int64(off)*alignment, int64(size)*alignment, t.MinSeq+seq
	if !h.within(e.Offset, e.Size) || e.Size < recordHead+int64(len(e.Key)) || !e.Kind.Indexed() || e.Flags&^knownFlags != 0 {
		return errHintForm
	}
	return nil
}

func (h *Hint) within(off, size int64) bool {
	return off >= HeaderSize && off%alignment == 0 && off <= h.footer.length-size
}

func (h *Hint) wrong(off int64, reason error) error {
	return fmt.Errorf("%s: useless from offset %d on: %w", h.path, off, reason)
}
