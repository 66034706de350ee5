package main

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/crowfly/crowfly/bench/measure"
)

// model knows what the store has to hold at four bytes a key: how many
// operations each key has seen. What operation n of a key was, the size of the
// value it put and the bytes of that follow from the key's number and n. One
// goroutine writes a key, and counts an operation when it was acknowledged.
type model struct {
	done     []atomic.Uint32
	blobSize int64 // from here on a value gets a file of its own
}

func newModel(keys int, blobSize int64) *model {
	return &model{make([]atomic.Uint32, keys), blobSize}
}

const (
	header = 4 // bytes of a value that say n

	smallest, small = 100, 1000
	medium          = 4096
)

// isDelete reports whether operation n was a delete, so that the key is absent
// until the next one. Operation 0 is that the key was never put.
func (m *model) isDelete(key uint64, n uint32) bool {
	return n == 0 || measure.Mix(key, 2*uint64(n))%10 == 0
}

// size of the value that operation n put: of 5000 values 100 have 4 KiB and one
// has a file of its own.
func (m *model) size(key uint64, n uint32) int {
	h := measure.Mix(key, 2*uint64(n)+1)
	class, size := h%5000, h/5000
	switch {
	case class == 0:
		return int(m.blobSize) + int(size%(2*uint64(m.blobSize)))
	case class <= 100:
		return medium
	}
	return smallest + int(size%(small-smallest+1))
}

// value appends the value that operation n put.
func (m *model) value(dst []byte, key uint64, n uint32) []byte {
	from, size := len(dst), m.size(key, n)
	dst = append(dst, make([]byte, size)...)
	binary.LittleEndian.PutUint32(dst[from:], n)
	measure.Fill(dst[from+header:], key, uint64(n))
	return dst
}

// identify returns which operation put a value, if every byte is as it put it.
func (m *model) identify(value []byte, key uint64) (n uint32, err error) {
	if len(value) < header {
		return 0, fmt.Errorf("key %d: value of %d bytes", key, len(value))
	}
	n = binary.LittleEndian.Uint32(value)
	if m.isDelete(key, n) || len(value) != m.size(key, n) {
		return n, fmt.Errorf("key %d: no operation %d put a value of %d bytes", key, n, len(value))
	}
	return n, measure.Check(value[header:], key, uint64(n))
}

// span is the operations of a key that a read may show: those acknowledged
// before it began, up to the one that may have been under way when it ended.
type span struct{ from, to uint32 }

// before and after are called around a read.
func (m *model) before(key uint64) span        { return span{from: m.done[key].Load()} }
func (m *model) after(s span, key uint64) span { s.to = m.done[key].Load() + 1; return s }

// check judges what a read found: a value, or nothing.
func (m *model) check(key uint64, s span, value []byte, found bool) error {
	if found {
		n, err := m.identify(value, key)
		if err == nil && (n < s.from || n > s.to) {
			err = fmt.Errorf("key %d shows operation %d, not one of %d to %d", key, n, s.from, s.to)
		}
		return err
	}
	for n := s.from; n <= s.to; n++ {
		if m.isDelete(key, n) {
			return nil
		}
	}
	return fmt.Errorf("key %d is missing, none of operations %d to %d deleted it", key, s.from, s.to)
}

// present is how many keys have a value, while nobody writes.
func (m *model) present() (n int) {
	for key := range m.done {
		if !m.isDelete(uint64(key), m.done[key].Load()) {
			n++
		}
	}
	return n
}

// bytes is what an operation leaves of a key: its value and itself.
func (m *model) bytes(key uint64, n uint32) int64 {
	if m.isDelete(key, n) {
		return 0
	}
	return int64(m.size(key, n)) + measure.KeySize
}
