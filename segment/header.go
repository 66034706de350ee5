package segment

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// HeaderSize is the length of the header that every file of a store begins
// with. Offset 0 is therefore never a record.
const HeaderSize = 64

// Version is the format version this code writes and the newest it reads.
const Version = 1

// Magic is the first word of a file and tells its kind.
type Magic uint32

// Kinds of file. The bytes read as text: "CFsg" and so on.
const (
	MagicSegment  Magic = 0x67734643
	MagicManifest Magic = 0x666d4643
	MagicHint     Magic = 0x6e684643
	MagicBlob     Magic = 0x6c624643
)

// StoreID is a random number that all files of one store carry, so that files
// of two stores are never mixed.
type StoreID [16]byte

// NewStoreID draws one.
func NewStoreID() (id StoreID) {
	rand.Read(id[:])
	return id
}

func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// RandomSalt draws the salt of a new file.
func RandomSalt() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) // sabotage: random-salt
}

// Header is the first 64 bytes of every file, little-endian:
//
//	 0 u32 magic          4 u16 format version   6 u16 least reader version
//	 8 u32 compatible features                  12 u32 incompatible features
//	16 store id, 16 bytes
//	32 u64 file id       40 u64 salt
//	48 u32 epoch         52 u32 zero            56 u64 xxhash64 of bytes 0..55
type Header struct {
	Magic Magic
	Store StoreID
	File  uint64 // segment ID, or generation of a manifest
	Salt  uint64 // makes the checksums of this file its own
	Epoch uint32 // how many writers had opened the store
}

// AppendHeader appends the encoded header to b.
func AppendHeader(b []byte, h Header) []byte {
	start := len(b)
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(h.Magic))
	b = le.AppendUint16(b, Version)
	b = le.AppendUint16(b, Version)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, 0)
	b = append(b, h.Store[:]...)
	b = le.AppendUint64(b, h.File)
	b = le.AppendUint64(b, h.Salt)
	b = le.AppendUint32(b, h.Epoch)
	b = le.AppendUint32(b, 0)
	return le.AppendUint64(b, xxhash.Sum64(b[start:]))
}

// DecodeHeader reads the header of a file of the given kind. An error that
// wraps ErrNewer is a healthy file for somebody else; any other is damage.
func DecodeHeader(b []byte, want Magic) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("file header cut off after %d bytes", len(b))
	}
	le := binary.LittleEndian
	if le.Uint64(b[56:]) != xxhash.Sum64(b[:56]) {
		return Header{}, errors.New("file header checksum")
	}
	if m := Magic(le.Uint32(b)); m != want {
		return Header{}, fmt.Errorf("file kind %08x where %08x belongs", uint32(m), uint32(want))
	}
	if v := le.Uint16(b[6:]); v > Version {
		return Header{}, fmt.Errorf("%w: format %d, this one reads up to %d", ErrNewer, v, Version)
	}
	if f := le.Uint32(b[12:]); f != 0 {
		return Header{}, fmt.Errorf("%w: incompatible features %#x", ErrNewer, f)
	}
	if le.Uint32(b[52:]) != 0 {
		return Header{}, errors.New("file header: reserved bytes are not zero")
	}
	h := Header{
		Magic: want,
		File:  le.Uint64(b[32:]),
		Salt:  le.Uint64(b[40:]),
		Epoch: le.Uint32(b[48:]),
	}
	copy(h.Store[:], b[16:32])
	return h, nil
}
