package index

import "github.com/crowfly/crowfly/segment"

// A word is one entry of the point index, see the package comment. A record
// never begins inside the file header, so no Ref is as small as empty and
// marker are.
type word uint64

const (
	empty  word = 0 // ends every chain
	marker word = 1 // a word was here: a chain goes on behind it

	verifiedBit word = 1 << segment.RefBits
	hashBits         = 23
	hashShift        = 64 - hashBits
)

// A hash is that of a key: its top bits choose the shard, the next ones are
// kept in the word.
type hash uint64

func (h hash) shard() int   { return int(h >> (64 - shardBits)) }
func (h hash) bits() uint64 { return uint64(h) << shardBits >> hashShift }

func makeWord(h hash, ref segment.Ref) word {
	return word(h.bits()<<hashShift | uint64(ref))
}

// named reports whether the word names a record.
func (w word) named() bool { return w > marker }

func (w word) bits() uint64     { return uint64(w) >> hashShift }
func (w word) ref() segment.Ref { return segment.Ref(w & (verifiedBit - 1)) }
func (w word) verified() bool   { return w&verifiedBit != 0 }
