package index

import (
	"math/bits"
	"runtime"
	"sync/atomic"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// minTable is the size in words of a shard's first table.
const minTable = 64

// table is an open-addressing hash table of words with linear probing. Its
// size is a power of two and it always has empty words, so every chain ends.
// Words change only under the index lock, but for the verified bit.
type table struct {
	words []uint64
	log   uint       // log2 of the number of words
	owner *vfs.Words // keeps words mapped; the collector does not see them
}

func newTable(size int) *table {
	owner := vfs.NewWords(size)
	return &table{words: owner.Slice(), log: uint(bits.Len(uint(size)) - 1), owner: owner}
}

// home is where the chain of a hash begins: the top bits of what a word keeps
// of it, so that a table can be rebuilt from its words alone. Beyond 2^23
// words all of it is used and the homes lie further and further apart.
func (t *table) home(bits uint64) int { return int(bits << t.log >> hashBits) }

// next is the position behind pos.
func (t *table) next(pos int) int { return (pos + 1) & (len(t.words) - 1) }

// find returns the first word from pos on with such bits of a hash, and where it
// is; empty if there is none.
func (t *table) find(pos int, bits uint64) (int, word) {
	for {
		w := t.load(pos)
		if w == empty || w.bits() == bits && w != marker {
			return pos, w
		}
		pos = t.next(pos)
	}
}

func (t *table) load(pos int) word     { return word(atomic.LoadUint64(&t.words[pos])) }
func (t *table) store(pos int, w word) { atomic.StoreUint64(&t.words[pos], uint64(w)) }

// swap stores w unless somebody changed the word since it was old.
func (t *table) swap(pos int, old, w word) {
	atomic.CompareAndSwapUint64(&t.words[pos], uint64(old), uint64(w))
	runtime.KeepAlive(t)
}

// locate returns the position of the word for a hash that names ref, or -1.
func (t *table) locate(h hash, ref segment.Ref) int {
	want := makeWord(h, ref)
	for pos := t.home(h.bits()); ; pos = t.next(pos) {
		switch w := t.load(pos); {
		case w == empty:
			return -1
		case w&^verifiedBit == want:
			return pos
		}
	}
}

// add puts a word that is known to be absent into a table that no reader sees
// yet and that has no markers.
func (t *table) add(w word) {
	pos := t.home(w.bits())
	for t.words[pos] != uint64(empty) {
		pos = t.next(pos)
	}
	t.words[pos] = uint64(w)
}

// fill counts what is in the table of a shard.
type fill struct {
	used    int // words that are not empty
	markers int // those of them that are markers
}

// reserve makes room for n more words in a shard, by a table of twice the size
// or, if markers take most of the space, by one of the same. Readers go on in
// the old table. What it still shows them is the truth of a moment ago; a
// verified bit set in it now is lost, which costs a second verification.
func (x *Index) reserve(shard, n int) {
	old, fill := x.tables[shard].Load(), &x.fills[shard]
	size := minTable
	if old != nil {
		size = len(old.words)
		if fill.used+n <= size/4*3 {
			return
		}
	}
	live := fill.used - fill.markers
	for live+n > size/2 {
		size *= 2
	}
	t := newTable(size)
	if old != nil {
		for pos := range old.words {
			if w := old.load(pos); w.named() {
				t.add(w)
			}
		}
	}
	fill.used, fill.markers = live, 0
	x.tables[shard].Store(t)
}
