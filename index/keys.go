package index

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"runtime"
	"sync/atomic"

	"github.com/crowfly/crowfly/segment"
)

// item is an entry of the ordered index. It has no pointers, so the collector
// does not look into the nodes of the tree.
type item struct {
	prefix uint64      // see prefixOf
	ref    segment.Ref // or a probe
}

// prefixOf is the first 8 bytes of a key, such that numbers are in the order of
// the keys. A shorter key reads as if zeros followed, so equal numbers prove
// nothing.
func prefixOf(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// keys knows the key of every item. All trees of an index share one, and with
// it their order.
type keys struct {
	slots  slotTable
	probes [maxProbes]probe
}

// A probe lends a key that is in no segment, such as the start of a range, to
// the order for the length of one call, as an item whose ref has the probe bit.
type probe struct {
	taken atomic.Bool
	key   []byte
}

const (
	probeBit segment.Ref = 1 << segment.RefBits
	// maxProbes bounds the calls that search at the same time. More wait.
	maxProbes = 64
)

// lend makes an item of a key, until giveBack.
func (k *keys) lend(key []byte) item {
	for i := 0; ; i++ {
		p := &k.probes[i%maxProbes]
		if !p.taken.Load() && p.taken.CompareAndSwap(false, true) {
			p.key = key
			return item{prefixOf(key), probeBit | segment.Ref(i%maxProbes)}
		}
		if i%maxProbes == maxProbes-1 {
			runtime.Gosched()
		}
	}
}

func (k *keys) giveBack(it item) {
	p := &k.probes[it.ref&^probeBit]
	p.key = nil
	p.taken.Store(false)
}

// key of an item. It is valid as long as the item's segment is alive.
func (k *keys) key(ref segment.Ref) []byte {
	if ref&probeBit != 0 {
		return k.probes[ref&^probeBit].key
	}
	return k.slots.key(ref)
}

// compare orders items by their keys, looking at records only if it must.
func (k *keys) compare(a, b item) int {
	if a.prefix != b.prefix {
		return comparePrefix(a, b)
	}
	return bytes.Compare(k.key(a.ref), k.key(b.ref))
}

func (k *keys) less(a, b item) bool { return k.compare(a, b) < 0 }

func comparePrefix(a, b item) int { return cmp.Compare(a.prefix, b.prefix) }
