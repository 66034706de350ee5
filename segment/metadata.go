package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// Metadata describes a value. The zero Metadata takes no space.
type Metadata struct {
	ModTime            time.Time // kept to the nanosecond, in UTC
	ContentType        string
	CacheControl       string
	ContentEncoding    string
	ContentDisposition string
	Checksums          []Pair // client checksums: name such as "md5", raw bytes
	User               []Pair // in the order given
	Unknown            []Pair // fields of newer versions: type byte, raw bytes; kept as they came
}

// Pair is a name with its value.
type Pair struct{ Name, Value string }

// Field types of encoded metadata. The list is part of the format.
const (
	metaModTime            = 1 // i64 nanoseconds since 1970
	metaContentType        = 2
	metaCacheControl       = 3
	metaContentEncoding    = 4
	metaContentDisposition = 5
	metaChecksum           = 6 // name, 0 byte, value
	metaUser               = 7 // name, 0 byte, value
)

// Encode returns the metadata as it lies in a record, a list of
//
//	0 u8 type   1 u16 length   3 content
//
// It fails if a field or the whole is longer than a record can hold, or if a
// name has a zero byte.
func (m *Metadata) Encode() ([]byte, error) {
	var e metaEncoder
	if !m.ModTime.IsZero() {
		if !time.Unix(0, m.ModTime.UnixNano()).Equal(m.ModTime) {
			e.fail(fmt.Errorf("modification time %v out of bounds", m.ModTime))
		}
		e.field(metaModTime, string(binary.LittleEndian.AppendUint64(nil, uint64(m.ModTime.UnixNano()))))
	}
	for _, f := range []struct {
		kind  byte
		value string
	}{
		{metaContentType, m.ContentType},
		{metaCacheControl, m.CacheControl},
		{metaContentEncoding, m.ContentEncoding},
		{metaContentDisposition, m.ContentDisposition},
	} {
		if f.value != "" {
			e.field(f.kind, f.value)
		}
	}
	e.pairs(metaChecksum, m.Checksums)
	e.pairs(metaUser, m.User)
	for _, p := range m.Unknown {
		if len(p.Name) != 1 {
			e.fail(fmt.Errorf("metadata field of unknown type %q", p.Name))
			continue
		}
		e.field(p.Name[0], p.Value)
	}
	if len(e.b) > MaxMeta-expirySize {
		e.fail(fmt.Errorf("metadata of %d bytes, the limit is %d", len(e.b), MaxMeta-expirySize))
	}
	return e.b, e.err
}

// metaEncoder keeps the first error, so that Encode reads as the list it writes.
type metaEncoder struct {
	b   []byte
	err error
}

func (e *metaEncoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *metaEncoder) field(kind byte, content string) {
	if len(content) > MaxMeta {
		e.fail(fmt.Errorf("metadata field of %d bytes, the limit is %d", len(content), MaxMeta))
		return
	}
	e.b = append(e.b, kind)
	e.b = binary.LittleEndian.AppendUint16(e.b, uint16(len(content)))
	e.b = append(e.b, content...)
}

func (e *metaEncoder) pairs(kind byte, list []Pair) {
	for _, p := range list {
		if bytes.IndexByte([]byte(p.Name), 0) >= 0 {
			e.fail(fmt.Errorf("metadata name %q has a zero byte", p.Name))
		}
		e.field(kind, p.Name+"\x00"+p.Value)
	}
}

// DecodeMetadata reads what Encode wrote. The result owns its memory.
func DecodeMetadata(b []byte) (Metadata, error) { return decodeMetadata(b, copied) }

// ViewMetadata is DecodeMetadata without a copy: the strings of the result lie
// in b, and are valid as long as b is and nobody writes to it.
func ViewMetadata(b []byte) (Metadata, error) { return decodeMetadata(b, inPlace) }

func copied(b []byte) string { return string(b) }

func inPlace(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func decodeMetadata(b []byte, text func([]byte) string) (m Metadata, err error) {
	for len(b) > 0 {
		if len(b) < 3 {
			return m, errors.New("metadata field cut off")
		}
		kind, n := b[0], int(binary.LittleEndian.Uint16(b[1:]))
		if len(b) < 3+n {
			return m, errors.New("metadata field longer than the metadata")
		}
		if err := m.decodeField(kind, b[3:3+n], text); err != nil {
			return m, err
		}
		b = b[3+n:]
	}
	return m, nil
}

func (m *Metadata) decodeField(kind byte, content []byte, text func([]byte) string) error {
	switch kind {
	case metaModTime:
		if len(content) != 8 {
			return fmt.Errorf("modification time of %d bytes", len(content))
		}
		m.ModTime = time.Unix(0, int64(binary.LittleEndian.Uint64(content))).UTC()
	case metaContentType:
		m.ContentType = text(content)
	case metaCacheControl:
		m.CacheControl = text(content)
	case metaContentEncoding:
		m.ContentEncoding = text(content)
	case metaContentDisposition:
		m.ContentDisposition = text(content)
	case metaChecksum, metaUser:
		name, value, ok := bytes.Cut(content, []byte{0})
		if !ok {
			return errors.New("metadata pair without a separator")
		}
		p := Pair{text(name), text(value)}
		if kind == metaChecksum {
			m.Checksums = append(m.Checksums, p)
		} else {
			m.User = append(m.User, p)
		}
	default:
		m.Unknown = append(m.Unknown, Pair{string([]byte{kind}), text(content)})
	}
	return nil
}
