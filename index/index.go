package index

import (
	"errors"
	"hash/maphash"
	"sync/atomic"

	"github.com/google/btree"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
)

var (
	// ErrAbsent says that the index has no such key.
	ErrAbsent = errors.New("key not in the index")

	// ErrClosed says that the index was closed.
	ErrClosed = errors.New("index closed")

	// ErrReleased says that an Ordered was released.
	ErrReleased = errors.New("ordered index released")

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
	segs    atomic.Pointer[Segments] // nil once closed
	tables  [shards]atomic.Pointer[table]
	visible atomic.Uint64
	keys    *keys

	// mu is the index lock: every change happens under it, but for the
	// verified bits. Readers of the point index and of clones don't take it.
	mu      lockorder.Mutex[lockorder.Index]
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
	x := &Index{
		seed:    maphash.MakeSeed(),
		keys:    new(keys),
		keeping: true,
		forever: o.KeepTombstones,
	}
	x.segs.Store(new(Segments))
	return x
}

// Visible is the highest sequence number that readers may see.
func (x *Index) Visible() uint64 { return x.visible.Load() }

// Usage of a segment that is attached.
func (x *Index) Usage(seg *segment.Segment) Usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.usage[seg.Slot()]
}

// CountUnnamed adds bytes that no word counts to the usage of a segment:
// tombstones, and records whose kind only a newer version knows, which were
// found in the segment or copied to it. Publish counts the tombstones that it
// is given.
func (x *Index) CountUnnamed(seg *segment.Segment, tombstones, newer int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.usage[seg.Slot()].Tombstones += tombstones
	x.usage[seg.Slot()].Newer += newer
}

// SegmentUsage is a segment with its usage.
type SegmentUsage struct {
	Segment *segment.Segment
	Usage
}

// Usages is the usage of every attached segment at one moment. It is empty
// after Close.
func (x *Index) Usages() (list []SegmentUsage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if segs := x.segs.Load(); segs != nil {
		for seg := range segs.All() {
			list = append(list, SegmentUsage{seg, x.usage[seg.Slot()]})
		}
	}
	return list
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
