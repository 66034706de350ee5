package fuzz

import (
	"encoding/binary"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment"
)

// What it may take to open a small store twice and read everything in it, in
// bytes and bytes for each byte of the input.
const judgeFixed, judgePerByte = 4 << 20, 200

// FuzzSegmentOpen promises that whatever lies under the name of a segment, a
// store shows what was put into it or says that the file is damaged, and
// changes nothing. Method: the input takes the place of a sealed segment, as
// it is or behind the real header.
func FuzzSegmentOpen(f *testing.F) {
	v := smallVictim(f)
	name := segment.ID(1).FileName()
	b, err := v.disk.ReadFile(name)
	check(f, err)
	f.Add(b, false)
	f.Add(b[segment.HeaderSize:], true)
	f.Add([]byte{}, false)
	header := b[:segment.HeaderSize:segment.HeaderSize]

	f.Fuzz(func(t *testing.T, input []byte, behind bool) {
		if behind {
			input = append(header, input...)
		}
		other := v.damaged(name, func([]byte) []byte { return input })
		bounded(t, len(input), judgeFixed, judgePerByte, func() {
			if _, err := other.judge(); err != nil {
				t.Error(err)
			}
		})
	})
}

// FuzzManifest promises the same for the manifest. With its checksums put
// right a manifest is believed and may name other things than there are; then
// no more is asked than to come to an end.
func FuzzManifest(f *testing.F) {
	v := smallVictim(f)
	name := newestManifest(v.disk)
	b, err := v.disk.ReadFile(name)
	check(f, err)
	f.Add(b, false)
	f.Add(b, true)
	f.Add(b[:len(b)/2], false)
	f.Add([]byte{}, false)

	f.Fuzz(func(t *testing.T, input []byte, repair bool) {
		for _, e := range imageEntries(input) {
			boundCapacity(e)
		}
		believed := repair && repairManifest(input)
		other := v.damaged(name, func([]byte) []byte { return input })
		other.hurt = nil // a manifest of another store makes the segment a foreign one
		bounded(t, len(input), judgeFixed, judgePerByte, func() {
			if _, err := other.judge(); err != nil && !believed {
				t.Error(err)
			}
		})
	})
}

// repairManifest puts the checksums of a manifest's first image right, if it
// has any.
func repairManifest(b []byte) bool {
	le := binary.LittleEndian
	if len(b) < segment.HeaderSize+8 {
		return false
	}
	end := segment.HeaderSize + 8 + int(le.Uint32(b[segment.HeaderSize:]))
	if end+8 > len(b) {
		return false
	}
	le.PutUint64(b[56:], xxhash.Sum64(b[:56]))
	le.PutUint64(b[end:], xxhash.Sum64(b[:end]))
	return true
}
