package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Kind tells what a record is. A reader must understand kinds below 128 and
// may skip those from 128.
type Kind uint8

const (
	KindPut       Kind = 1 // key and value
	KindDelete    Kind = 2 // tombstone
	KindBlobRef   Kind = 3 // the value is a list of BlobExtents
	KindWatermark Kind = 4 // only carries durableTo; takes no sequence number
	KindSeal      Kind = 5 // reserved, never written

	skippableKind Kind = 128
)

// Indexed reports whether records of this kind say what the value of their key
// is. The others, watermarks and kinds that may be skipped, don't.
func (k Kind) Indexed() bool { return k == KindPut || k == KindDelete || k == KindBlobRef }

// Flags of a record. A reader refuses flags it does not know.
type Flags uint8

const (
	FlagFirst   Flags = 1 << iota // first record of a batch
	FlagExpiry                    // metadata begins with an i64, unix milliseconds
	FlagAligned                   // the value begins at a multiple of 4096
	FlagChunked                   // a ChunkTable follows the value
	FlagCopied                    // written by recovery, fold or compaction, not by a put

	knownFlags = FlagFirst | FlagExpiry | FlagAligned | FlagChunked | FlagCopied
)

// Limits of the format, in bytes but for MaxSeq.
const (
	MaxKey      = 1<<16 - 1
	MaxMeta     = 1<<16 - 1
	MaxValueLen = 1 << 40
	MaxSeq      = 1<<63 - 1 // so that there is always a next one

	// Alignment of values with FlagAligned.
	Alignment = pageSize

	recordHead = 48
	expirySize = 8
	alignment  = 8
	pageSize   = 4096
)

// Record is one put or tombstone:
//
//	 0 u64 hsum       xxhash64 over bytes 8..47, key and metadata, seeded
//	                  with the salt of the file and the offset of the record
//	 8 u64 durableTo  offset in this file known synced when this was written
//	16 u64 vsum       checksum of the value, unseeded
//	24 u16 keyLen    26 u16 metaLen    28 u8 kind    29 u8 flags
//	30 u16 left      records of this batch still to come
//	32 u64 valLen    40 u64 seq
//	48 key, metadata
//	   zero bytes to a multiple of 4096      if FlagAligned
//	   value
//	   zero bytes to a multiple of 8, table  if FlagChunked
//	   zero bytes to a multiple of 8
//
// The seed makes a record that is stale, moved or written to the wrong place
// fail its check. Copies keep kind, seq and vsum.
type Record struct {
	Kind      Kind
	Flags     Flags
	Left      uint16
	Seq       uint64
	DurableTo int64
	Sum       uint64     // vsum: of the value, or of the table if FlagChunked
	Expiry    int64      // unix milliseconds, if FlagExpiry
	Key       []byte     // 1..MaxKey bytes; none in a watermark
	Meta      []byte     // encoded Metadata, without the expiry
	Value     []byte     // what the record holds; for a blobref the encoded extents
	Table     ChunkTable // if FlagChunked

	Offset int64 // where the record lies in its file, set by reading and Append
	End    int64
	hsum   uint64

	rest [][]byte // of the value, behind Value; only before the record is written
}

// PutLen is the length of the value of a record that was made to be written.
func (r *Record) PutLen() int {
	n := len(r.Value)
	for _, piece := range r.rest {
		n += len(piece)
	}
	return n
}

// Spill is what lies of the metadata in other pages than header and key. It is not
// looked at.
func (r *Record) Spill() []byte {
	keyEnd := r.Offset + recordHead + int64(len(r.Key))
	next := roundUp(keyEnd, pageSize) - (keyEnd + int64(r.metaLen()-len(r.Meta)))
	if next >= int64(len(r.Meta)) {
		return nil
	}
	return r.Meta[max(next, 0):]
}

// NewPut makes a put with its checksums. It refers to key, meta and value.
func NewPut(key, meta, value []byte) *Record {
	r := &Record{Kind: KindPut, Flags: FlagFirst, Key: key, Meta: meta, Value: value}
	r.sum()
	return r
}

// NewPutOf is NewPut for a value in pieces, so that one which came so need not be in
// memory twice.
func NewPutOf(key, meta []byte, value [][]byte) *Record {
	r := &Record{Kind: KindPut, Flags: FlagFirst, Key: key, Meta: meta}
	if len(value) > 0 {
		r.Value, r.rest = value[0], value[1:]
	}
	r.sum()
	return r
}

// sum computes the checksums of the value.
func (r *Record) sum() {
	if r.PutLen() > ChunkedAbove {
		r.Flags |= FlagChunked
		r.Table = sumChunks(r.Value, r.rest)
		r.Sum = r.Table.Sum()
		return
	}
	if len(r.rest) == 0 {
		r.Sum = xxhash.Sum64(r.Value)
		return
	}
	d := xxhash.New()
	d.Write(r.Value)
	for _, piece := range r.rest {
		d.Write(piece)
	}
	r.Sum = d.Sum64()
}

// NewBlobRef makes a record whose value lies in blobs.
func NewBlobRef(key, meta []byte, list []BlobExtent) *Record {
	r := NewPut(key, meta, AppendBlobExtents(nil, list))
	r.Kind = KindBlobRef
	return r
}

// NewDelete makes a tombstone.
func NewDelete(key []byte) *Record {
	return &Record{Kind: KindDelete, Flags: FlagFirst, Key: key}
}

// WatermarkSize is what a watermark takes in a file.
const WatermarkSize = recordHead

// NewWatermark makes a record that only says what is durable. seq is the last
// sequence number given out.
func NewWatermark(seq uint64) *Record {
	return &Record{Kind: KindWatermark, Flags: FlagFirst, Seq: seq}
}

// MaxRecordSize bounds what a record takes in a file.
func MaxRecordSize(keyLen, metaLen, valLen int) int64 {
	size := int64(recordHead + keyLen + metaLen + expirySize + valLen + 2*alignment)
	if valLen > ChunkedAbove {
		size += chunkTableSize(uint64(valLen), recordChunkLog)
	}
	return size
}

// layout is where the parts of a record lie, as offsets in the file. end is
// that of a record without a table.
type layout struct{ key, meta, metaEnd, value, table, end int64 }

func (r *Record) place(off int64, keyLen, metaLen int, valLen uint64) (l layout) {
	l.key = off + recordHead
	l.meta = l.key + int64(keyLen)
	l.metaEnd = l.meta + int64(metaLen)
	l.value = l.metaEnd
	if r.Flags&FlagAligned != 0 {
		l.value = roundUp(l.value, pageSize)
	}
	l.table = roundUp(l.value+int64(valLen), alignment)
	l.end = l.table
	return l
}

func roundUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }

// metaLen is the length of the metadata on disk.
func (r *Record) metaLen() int {
	if r.Flags&FlagExpiry != 0 {
		return expirySize + len(r.Meta)
	}
	return len(r.Meta)
}

// size is what the record takes at off.
func (r *Record) size(off int64) int64 {
	return r.place(off, len(r.Key), r.metaLen(), uint64(r.PutLen())).end + int64(len(r.Table)) - off
}

// appendHead appends everything before the value: header, key, metadata and
// the padding of an aligned value.
func (r *Record) appendHead(b []byte, off int64, salt uint64) []byte {
	le, start := binary.LittleEndian, len(b)
	b = le.AppendUint64(b, 0)
	b = le.AppendUint64(b, uint64(r.DurableTo))
	b = le.AppendUint64(b, r.Sum)
	b = le.AppendUint16(b, uint16(len(r.Key)))
	b = le.AppendUint16(b, uint16(r.metaLen()))
	b = append(b, byte(r.Kind), byte(r.Flags))
	b = le.AppendUint16(b, r.Left)
	b = le.AppendUint64(b, uint64(r.PutLen()))
	b = le.AppendUint64(b, r.Seq)
	b = append(b, r.Key...)
	if r.Flags&FlagExpiry != 0 {
		b = le.AppendUint64(b, uint64(r.Expiry))
	}
	b = append(b, r.Meta...)
	r.hsum = headSum(b[start:], off, salt)
	le.PutUint64(b[start:], r.hsum)

	l := r.place(off, len(r.Key), r.metaLen(), uint64(r.PutLen()))
	return appendZeros(b, off+int64(len(b)-start), l.value)
}

// appendTail appends everything behind the value.
func (r *Record) appendTail(b []byte, off int64) []byte {
	l := r.place(off, len(r.Key), r.metaLen(), uint64(r.PutLen()))
	b = appendZeros(b, l.value+int64(r.PutLen()), l.table)
	return append(b, r.Table...)
}

// zeros is padding to write and to compare with.
var zeros [pageSize]byte

func appendZeros(b []byte, from, to int64) []byte { return append(b, zeros[:to-from]...) }

// headSum is the checksum over bytes 8..47, key and metadata.
func headSum(head []byte, off int64, salt uint64) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(salt ^ uint64(off)*0x9e3779b97f4a7c15) // sabotage: seed-offset
	d.Write(head[8:])
	return d.Sum64()
}

// peek reads the record at off of data without proving anything but that its
// parts lie within data.
func peek(data []byte, off int64) (r Record, l layout, ok bool) {
	if r, l, ok = peekHead(data, off); ok && r.Flags&FlagChunked != 0 {
		ok = r.peekTable(data, l)
	}
	return r, l, ok
}

// peekHead is peek without a look at what lies behind the value.
func peekHead(data []byte, off int64) (r Record, l layout, ok bool) {
	if off < HeaderSize || off%alignment != 0 || off > int64(len(data))-recordHead {
		return r, l, false
	}
	h, le := data[off:off+recordHead], binary.LittleEndian
	keyLen, metaLen, valLen := int(le.Uint16(h[24:])), int(le.Uint16(h[26:])), le.Uint64(h[32:])
	r = Record{
		hsum:      le.Uint64(h),
		DurableTo: int64(le.Uint64(h[8:])),
		Sum:       le.Uint64(h[16:]),
		Kind:      Kind(h[28]),
		Flags:     Flags(h[29]),
		Left:      le.Uint16(h[30:]),
		Seq:       le.Uint64(h[40:]),
		Offset:    off,
	}
	if valLen > MaxValueLen {
		return r, l, false
	}
	l = r.place(off, keyLen, metaLen, valLen)
	if l.end > int64(len(data)) {
		return r, l, false
	}
	r.Key = data[l.key:l.meta:l.meta]
	r.Meta = data[l.meta:l.metaEnd:l.metaEnd]
	r.Value = data[l.value : l.value+int64(valLen) : l.value+int64(valLen)]
	if r.Flags&FlagExpiry != 0 && metaLen >= expirySize {
		r.Expiry = int64(le.Uint64(r.Meta))
		r.Meta = r.Meta[expirySize:]
	}
	r.End = l.end
	return r, l, true
}

// peekTable finds the table behind the value. Its length follows from its
// first word, which decode believes only once the whole table has its sum.
func (r *Record) peekTable(data []byte, l layout) bool {
	if l.table+8 > int64(len(data)) {
		return false
	}
	log, ok := readChunkLog(data[l.table:])
	if !ok {
		return false
	}
	r.End = l.table + chunkTableSize(uint64(len(r.Value)), log)
	if r.End > int64(len(data)) {
		return false
	}
	r.Table = ChunkTable(data[l.table:r.End:r.End])
	return true
}

// Errors of decode that recovery need not tell apart.
var (
	errCutOff   = errors.New("record reaches beyond the end of the file")
	errHeadSum  = errors.New("record header checksum")
	errValueSum = errors.New("value checksum")
	errTableSum = errors.New("chunk table checksum")
	errPadding  = errors.New("padding is not zero")
	errExpiry   = errors.New("no room for the expiry in the metadata")
)

// decode reads the record at off of data and proves all of it but the value:
// header, key, metadata and chunk table by their checksums. The record's
// slices point into data.
func decode(data []byte, off int64, salt uint64) (Record, error) {
	r, l, ok := peek(data, off)
	if !ok {
		return r, errCutOff
	}
	if headSum(data[off:l.metaEnd], off, salt) != r.hsum {
		return r, errHeadSum
	}
	if err := r.check(); err != nil {
		return r, err
	}
	if r.Flags&FlagExpiry != 0 && l.metaEnd-l.meta < expirySize {
		return r, errExpiry
	}
	if r.Flags&FlagChunked != 0 && r.Table.Sum() != r.Sum {
		return r, errTableSum
	}
	if !isZero(data[l.metaEnd:l.value]) || !isZero(data[l.value+int64(len(r.Value)):l.table]) {
		return r, errPadding
	}
	return r, nil
}

// check applies the rules of the format to a record whose header is proven.
func (r *Record) check() error {
	if r.Flags&^knownFlags != 0 {
		return fmt.Errorf("%w: record flags %#x", ErrNewer, r.Flags)
	}
	if r.DurableTo < 0 || r.DurableTo > r.Offset {
		return fmt.Errorf("record claims %d bytes durable before it", r.DurableTo)
	}
	if r.Seq > MaxSeq {
		return fmt.Errorf("sequence number %d", r.Seq)
	}
	if r.Flags&FlagCopied != 0 && (r.Left != 0 || r.DurableTo != 0) {
		return errors.New("copied record is part of a batch")
	}
	switch r.Kind {
	case KindPut, KindBlobRef:
		if len(r.Key) == 0 {
			return errors.New("record without a key")
		}
		if r.Flags&FlagChunked != 0 && (r.Kind != KindPut || len(r.Value) == 0) {
			return errors.New("chunk table without a value")
		}
	case KindDelete:
		if len(r.Key) == 0 || len(r.Value) != 0 || r.Sum != 0 || r.Flags&(FlagChunked|FlagAligned) != 0 {
			return errors.New("malformed tombstone")
		}
	case KindWatermark:
		if len(r.Key)+len(r.Meta)+len(r.Value) != 0 || r.Left != 0 || r.Sum != 0 || r.Flags != FlagFirst {
			return errors.New("malformed watermark")
		}
	default:
		if r.Kind < skippableKind {
			return fmt.Errorf("%w: record kind %d", ErrNewer, r.Kind)
		}
	}
	return nil
}

// ValueOffset is where the value begins in the file.
func (r *Record) ValueOffset() int64 {
	return r.place(r.Offset, len(r.Key), r.metaLen(), uint64(len(r.Value))).value
}

// ValueSize is the size of the value that the record stands for. Of a blobref
// that can't be read it is 0.
func (r *Record) ValueSize() int64 {
	if r.Kind != KindBlobRef {
		return int64(len(r.Value))
	}
	_, size, _ := DecodeBlobExtents(r.Value)
	return int64(size)
}

// VerifyValue checks the value and the padding before it against the record's
// checksums. The record comes from a verified header.
func (r *Record) VerifyValue() error {
	if r.Flags&FlagChunked != 0 {
		for i := range r.Table.Chunks() {
			if err := r.Table.Verify(r.Value, i); err != nil {
				return err
			}
		}
		return nil
	}
	if len(r.Value) == 0 && r.Sum == 0 {
		return nil // tombstones and watermarks have no value to sum
	}
	if xxhash.Sum64(r.Value) != r.Sum {
		return errValueSum
	}
	return nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
