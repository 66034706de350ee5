package db

import (
	"strconv"

	"github.com/crowfly/crowfly/segment"
)

// Version tells one value of a key from every other the key ever had: the
// checksum of the contents and the sequence number of the put. The checksum
// alone would not notice that a value was changed and changed back.
type Version struct {
	Sum uint64 // xxhash64 of the value, above 1 MiB of its chunk table, in a file of its own of where it lies
	Seq uint64
}

func (v Version) String() string { return string(v.Append(nil)) }

// Append appends what String returns.
func (v Version) Append(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v.Sum>>shift&15])
	}
	return strconv.AppendUint(append(b, '-'), v.Seq, 16)
}

func versionOf(r *segment.Record) Version { return Version{Sum: r.Sum, Seq: r.Seq} }
