package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Piece is what lies at one place of a segment: a record that is whole, or
// damage. All slices point into the bytes that were scanned.
type Piece struct {
	From, To int64
	Record   Record // believed as far as Named and Usable say
	Err      error  // what is wrong; nil for a whole record

	// Named says that header, key and metadata are proven by their checksum,
	// whatever has become of the rest.
	Named bool

	// Usable says that the value is proven too: there is nothing wrong, or
	// only with padding, which a copy does not have.
	Usable bool
}

// errUnreadable is about bytes that lead from one record to the next one that
// verifies.
var errUnreadable = errors.New("no record verifies here")

// Scan looks at all of data from offset from on, values included. Behind
// damage it goes on with the next record that verifies, wherever it begins.
// data is as much of a segment file as there should be something in.
func Scan(data []byte, from int64, salt uint64) iter.Seq[Piece] {
	return func(yield func(Piece) bool) {
		for off := from; off < int64(len(data)); {
			p := examine(data, off, salt)
			if !yield(p) {
				return
			}
			off = p.To
		}
	}
}

// examine finds out what lies at off.
func examine(data []byte, off int64, salt uint64) Piece {
	r, err := decode(data, off, salt)
	if err == nil {
		err = r.VerifyValue()
	}
	if err == nil {
		err = checkMeta(&r)
	}
	if err == nil {
		return Piece{From: off, To: r.End, Record: r, Named: true, Usable: true}
	}
	head, l, ok := proveHead(data, off, salt)
	if !ok {
		return Piece{From: off, To: nextRecord(data, off+alignment, salt), Err: errUnreadable}
	}
	p := Piece{From: off, Record: head, Err: err, Named: true}
	if err == errPadding {
		p.Record, p.Usable = r, r.VerifyValue() == nil && checkMeta(&r) == nil
	}
	// A header that is proven says where the record ends, except for the
	// table, whose length stands in the table.
	p.To = min(l.end, int64(len(data)))
	if r.End > l.end && r.Table.Sum() == r.Sum {
		p.To = r.End
	} else if head.Flags&FlagChunked != 0 {
		p.To = nextRecord(data, p.To, salt)
	}
	return p
}

// proveHead reads header, key and metadata at off and proves them. The value
// may be damaged or cut off.
func proveHead(data []byte, off int64, salt uint64) (r Record, l layout, ok bool) {
	if !plausible(data, off) {
		return r, l, false
	}
	h, le := data[off:off+recordHead], binary.LittleEndian
	keyLen, metaLen, valLen := int(le.Uint16(h[24:])), int(le.Uint16(h[26:])), le.Uint64(h[32:])
	end := off + recordHead + int64(keyLen) + int64(metaLen)
	if end > int64(len(data)) || valLen > MaxValueLen || headSum(data[off:end], off, salt) != le.Uint64(h) {
		return r, l, false
	}
	r = Record{
		Kind: Kind(h[28]), Flags: Flags(h[29]), Seq: le.Uint64(h[40:]), DurableTo: int64(le.Uint64(h[8:])), Offset: off,
	}
	l = r.place(off, keyLen, metaLen, valLen)
	r.Key, r.End = data[l.key:l.meta:l.meta], l.end
	return r, l, true
}

// nextRecord returns the next offset from off on at which a header is proven,
// or the end of data.
func nextRecord(data []byte, off int64, salt uint64) int64 {
	for ; off <= int64(len(data))-recordHead; off += alignment {
		if _, _, ok := proveHead(data, off, salt); ok {
			return off
		}
	}
	return int64(len(data))
}

// plausible is the cheap test before the checksum: whether a header of this or
// a newer version may begin at off.
func plausible(data []byte, off int64) bool {
	if off < HeaderSize || off%alignment != 0 || off > int64(len(data))-recordHead {
		return false
	}
	return binary.LittleEndian.Uint64(data[off+8:]) <= uint64(off) && data[off+28] != 0
}

func checkMeta(r *Record) error {
	if _, err := DecodeMetadata(r.Meta); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

// FindTail looks for the end of a segment that nobody has sealed, from the end
// of a batch on. data is all of the file.
func FindTail(data []byte, from int64, salt uint64) Tail {
	t := scanBatches(data, from, salt)
	t.probe(data, t.Valid, salt)
	return t
}

// RawIdentity reads store and salt from a header without any proof, for a file
// whose header is damaged.
func RawIdentity(data []byte) (store StoreID, salt uint64, ok bool) {
	if len(data) < HeaderSize {
		return store, 0, false
	}
	copy(store[:], data[16:32])
	return store, binary.LittleEndian.Uint64(data[40:]), true
}
