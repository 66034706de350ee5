package measure

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

const (
	golden  = 0x9E3779B97F4A7C15
	inverse = 0xF1DE83E19937733D // golden*inverse == 1
)

// KeySize is how long keys are.
const KeySize = 16

// Key appends the key of a number to dst. Keys of successive numbers are far
// apart in their order.
func Key(dst []byte, number uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], number*golden)
	return hex.AppendEncode(dst, b[:])
}

// Number is the number of a key.
func Number(key []byte) (uint64, error) {
	var b [8]byte
	if len(key) != KeySize {
		return 0, fmt.Errorf("key %q was never written", key)
	}
	if _, err := hex.Decode(b[:], key); err != nil {
		return 0, fmt.Errorf("key %q was never written: %w", key, err)
	}
	return binary.BigEndian.Uint64(b[:]) * inverse, nil
}

// Mix is a hash of two numbers.
func Mix(a, b uint64) uint64 { return mix(mix(a+golden) ^ b) }

// mix is the finalizer of splitmix64, by Steele, Lea and Flood.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// Fill makes dst the value of a key's version: bytes that nothing compresses
// and that nobody has to keep to check.
func Fill(dst []byte, number, version uint64) {
	seed := Mix(number, version)
	for len(dst) >= 8 {
		seed += golden
		binary.LittleEndian.PutUint64(dst, mix(seed))
		dst = dst[8:]
	}
	var last [8]byte
	binary.LittleEndian.PutUint64(last[:], mix(seed+golden))
	copy(dst, last[:])
}

// Check compares bytes with what Fill makes.
func Check(got []byte, number, version uint64) error {
	seed := Mix(number, version)
	for at := 0; at < len(got); at += 8 {
		seed += golden
		var want [8]byte
		binary.LittleEndian.PutUint64(want[:], mix(seed))
		if part := got[at:min(at+8, len(got))]; string(part) != string(want[:len(part)]) {
			return fmt.Errorf("key %s, version %d: wrong bytes at %d of %d", Key(nil, number), version, at, len(got))
		}
	}
	return nil
}
