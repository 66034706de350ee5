package index

import (
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/btree"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

var (
	// ErrAbsent says that the index has no such key.
	ErrAbsent = errors.New("key not in the index")

	// ErrStale says that the key may be in a segment that the given Segments
	// lack: they are older than the index. Load them again and repeat.
	ErrStale = errors.New("segments older than the index")

	// ErrNotResident says that the record of a key may have to come from disk.
	ErrNotResident = errors.New("record not in memory")

	// ErrNoSlots says that MaxSlots segments are alive. A collection may free
	// some.
	ErrNoSlots = errors.New("too many segments open")
)

const (
	shardBits = 8
	shards    = 1 << shardBits
)

// Segments are those a reader works with, by slot, nil where it has none. They
// are never changed once a reader may have them.
type Segments []*segment.Segment

// of is the segment that a word names, nil if there is none.
func (list Segments) of(w word) *segment.Segment {
	if slot := w.ref().Slot(); w.named() && slot < len(list) {
		return list[slot]
	}
	return nil
}

// Options of an Index.
type Options struct {
	// KeepTombstones keeps them for good. A follower wants that: it meets
	// records out of order, and a late older put must find the tombstone.
	// Otherwise they are kept until DropTombstones.
	KeepTombstones bool
}

// Usage is what is live in a segment: puts that a key names now, and the bytes
// they take. Tombstones are not live, and counted apart: all of them, also
// those that a newer record has superseded.
type Usage struct {
	Records    int
	Bytes      int64
	Tombstones int64 // bytes
	Newer      int64 // bytes of records whose kind only a newer version knows
}

// Index maps keys to the records that hold their newest versions. Its methods
// are safe for concurrent use.
type Index struct {
	seed    maphash.Seed
	tables  [shards]atomic.Pointer[table]
	visible atomic.Uint64
	keys    *keys

	// mu is the index lock: every change happens under it, but for the
	// verified bits. Readers of the point index and of clones don't take it.
	mu      sync.Mutex
	fills   [shards]fill
	usage   []Usage // by slot
	live    int     // keys
	newest  uint64  // highest sequence number ever published
	keeping bool    // tombstones stay words
	forever bool    // Options.KeepTombstones
	graves  []grave // tombstone words that are to become markers
	hashes  []hash  // of the changes being published; kept for its memory

	tree *btree.BTreeG[item] // nil until the first Snapshot
	feed []edit              // what the tree does not know yet
}

// New returns an empty index. It keeps tombstones until DropTombstones, so it
// can be filled in any order.
func New(o Options) *Index {
	return &Index{
		seed:    maphash.MakeSeed(),
		keys:    new(keys),
		keeping: true,
		forever: o.KeepTombstones,
	}
}

// Attach gives a segment a slot. The slot becomes free when the collector finds
// the Segment unreachable, and no earlier: a reader may hold it long after it
// left the store.
func (x *Index) Attach(s *segment.Segment) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	slot, ok := x.keys.slots.take(&held{s.Bytes(), s.Salt(), s.Path()})
	if !ok {
		return ErrNoSlots
	}
	s.Attach(slot)
	vfs.Own(s, release, lease{&x.keys.slots, slot})
	if n := slot + 1; n > len(x.usage) {
		x.usage = append(x.usage, make([]Usage, n-len(x.usage))...)
	}
	x.usage[slot] = Usage{}
	return nil
}

// Visible is the highest sequence number that readers may see.
func (x *Index) Visible() uint64 { return x.visible.Load() }

// Usage of the segment in a slot.
func (x *Index) Usage(slot int) Usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.usage[slot]
}

// CountUnnamed notes so many bytes of tombstones and of records whose kind only a
// newer version knows, which were found in the segment in a slot or copied to it.
// Publish counts the tombstones that it is given.
func (x *Index) CountUnnamed(slot int, tombstones, newer int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.usage[slot].Tombstones += tombstones
	x.usage[slot].Newer += newer
}

// Usages is the usage of all segments, by slot.
func (x *Index) Usages() []Usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.usage)
}

// TableBytes is how much memory the hash takes. The order of the keys, once a
// Snapshot has asked for it, takes more.
func (x *Index) TableBytes() (n int64) {
	for i := range x.tables {
		if t := x.tables[i].Load(); t != nil {
			n += 8 * int64(len(t.words))
		}
	}
	return n
}

// Len is the number of live keys.
func (x *Index) Len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.live
}

func (x *Index) hash(key []byte) hash { return hash(maphash.Bytes(x.seed, key)) }
