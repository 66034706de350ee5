package segment

import "encoding/binary"

// A Stub is what an index must know of a record to tell it from others. It is
// read without any proof: the checksum of the record covers all three, and
// whoever is about to believe something that matters calls Read first.
type Stub struct {
	Key  []byte
	Seq  uint64
	Kind Kind
}

// Stub returns the stub of the record at off, or false if it does not lie
// within the segment.
func (s *Segment) Stub(off int64) (Stub, bool) {
	return StubAt(s.mem[:s.end.Load()], off)
}

// StubAt returns the stub of the record at off of data, or false if it does
// not lie within data.
func StubAt(data []byte, off int64) (Stub, bool) {
	key, ok := KeyAt(data, off)
	if !ok {
		return Stub{}, false
	}
	head := data[off : off+recordHead]
	return Stub{Key: key, Seq: binary.LittleEndian.Uint64(head[40:]), Kind: Kind(head[28])}, true
}

// KeyAt returns the key of the record at off of data, or false if it does not
// lie within data.
func KeyAt(data []byte, off int64) ([]byte, bool) {
	if off < HeaderSize || off > int64(len(data))-recordHead {
		return nil, false
	}
	start := off + recordHead
	end := start + int64(binary.LittleEndian.Uint16(data[off+24:]))
	if end > int64(len(data)) {
		return nil, false
	}
	return data[start:end:end], true
}

// SizeAt returns the bytes that the record at off of data takes, or false if it
// does not lie within data. A chunked record is looked at behind its value too.
func SizeAt(data []byte, off int64) (int64, bool) {
	r, _, ok := peek(data, off)
	return r.End - r.Offset, ok
}

// ProveAt verifies the record at off of data, the memory of a segment with
// that salt and path, but for its value.
func ProveAt(data []byte, off int64, salt uint64, path string) error {
	_, err := decode(data, off, salt)
	if err != nil {
		return corrupt(path, off, err)
	}
	return nil
}
