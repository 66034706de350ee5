package db

import (
	"fmt"

	"github.com/crowfly/crowfly/segment"
)

// Version tells one value of a key from every other the key ever had: the
// checksum of the contents and the sequence number of the put. The checksum
// alone would not notice that a value was changed and changed back.
type Version struct {
	Sum uint64 // xxhash64 of the value, above 1 MiB of its chunk table, in a file of its own of where it lies
	Seq uint64
}

func (v Version) String() string { return fmt.Sprintf("%016x-%x", v.Sum, v.Seq) }

func versionOf(r *segment.Record) Version { return Version{Sum: r.Sum, Seq: r.Seq} }
