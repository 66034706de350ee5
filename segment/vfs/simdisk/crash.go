package simdisk

import (
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes in one piece.
const sector = 512

// Crash returns an independent disk as a power cut now could leave it. What
// was synced is there. Of everything else some subset is, chosen with rng: for
// each file which sectors of which writes, what size between the durable and
// the current one, and what lies in sectors that were never written (zeros, or
// what another file left there); for the directory which operations. On the
// new disk all of that is durable, nothing is pending and no lock is held.
// Hooks, faults and timers don't come along.
func (d *Disk) Crash(rng *rand.Rand) *Disk {
	return d.CrashIn(Manner{
		Keep:    Keep(rng.IntN(2) * (1 + rng.IntN(Keeps-1))), // half of the time each file in a way of its own
		Size:    Size(rng.IntN(2) * rng.IntN(Sizes)),
		Ordered: rng.IntN(2) == 0,
		Garbage: rng.IntN(4) == 0,
	}, rng)
}

// CrashIn is Crash in a given manner, so that rng chooses the details only.
func (d *Disk) CrashIn(m Manner, rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newCut(d, m, rng)
	left := c.directory(d.durable, d.pending)
	files := make([]inode, len(left))
	after := make(names, len(left))
	for i, e := range left {
		bytes := c.contents(e.ino)
		files[i] = inode{durable: bytes, cached: bytes}
		after[i] = entry{e.name, &files[i]}
	}
	return &Disk{names: after, durable: after, freed: slices.Clip(d.freed), size: d.size}
}

// Pending reports whether a power cut can leave anything but what programs see.
func (d *Disk) Pending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending) > 0 || slices.ContainsFunc(d.names, func(e entry) bool { return e.ino.unsynced() })
}

// Clone returns an independent disk in the same state, as the next process
// finds it when this one is killed: the cache is there, what is pending stays
// so, no lock is held. Hooks, faults and timers don't come along.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	clones := make(map[*inode]*inode)
	clone := func(ino *inode) *inode {
		if clones[ino] == nil {
			clones[ino] = ino.clone()
		}
		return clones[ino]
	}
	cloneNames := func(ns names) names {
		out := make(names, len(ns))
		for i, e := range ns {
			out[i] = entry{e.name, clone(e.ino)}
		}
		return out
	}
	out := &Disk{
		names:   cloneNames(d.names),
		durable: cloneNames(d.durable),
		pending: slices.Clone(d.pending),
		freed:   slices.Clip(d.freed),
		size:    d.size,
	}
	for i := range out.pending {
		out.pending[i].ino = clone(out.pending[i].ino)
	}
	return out
}

// cut is one power cut.
type cut struct {
	Manner
	rng     *rand.Rand
	garbage [][]byte // what never written sectors may hold; nil for zeros
}

func newCut(d *Disk, m Manner, rng *rand.Rand) *cut {
	c := &cut{Manner: m, rng: rng}
	if m.Garbage {
		c.garbage = append(c.garbage, d.freed...)
		for _, e := range d.names {
			c.garbage = append(c.garbage, e.ino.durable)
		}
	}
	return c
}

// choose makes a choice among n things.
func (c *cut) choose(n int) choice {
	keep := c.Keep
	if keep == KeepMixed {
		keep = Keep(1 + c.rng.IntN(Keeps-1))
	}
	return newChoice(c.rng, keep, n)
}

// directory returns the names that are left. With a journal the operations
// that survive are the first ones; without, any.
func (c *cut) directory(durable names, pending []change) names {
	if len(pending) == 0 {
		return durable
	}
	keep := c.choose(len(pending))
	if c.Ordered && c.Keep != KeepNone && c.Keep != KeepAll {
		keep = newChoice(c.rng, KeepFirst, len(pending))
	}
	left := durable
	for _, p := range pending {
		if keep.next() {
			left = p.apply(left)
		}
	}
	return left
}

// contents returns the bytes of a file that are left.
func (c *cut) contents(ino *inode) []byte {
	low, high := len(ino.durable), len(ino.cached)
	if !ino.unsynced() {
		return slices.Clip(ino.durable)
	}
	out := make([]byte, high)
	c.dirty(out[min(high, roundUp(low)):], roundUp(low))
	copy(out, ino.durable)

	sectors := 0
	for _, w := range ino.pending {
		sectors += sectorsOf(w)
	}
	keep := c.choose(sectors)
	end := low
	for _, w := range ino.pending {
		for off := w.off; off < w.end(); off = sectorEnd(off) {
			if keep.next() {
				to := min(sectorEnd(off), w.end())
				copy(out[off:to], w.data[off-w.off:])
				end = max(end, to)
			}
		}
	}
	size := c.size(ino, end)
	return out[:size:size]
}

// size chooses the size a file is left with; end is where the last byte that
// survived ends. A size is written apart from the bytes, so it may be smaller,
// which cuts them off, or larger.
func (c *cut) size(ino *inode, end int) int {
	low, high := len(ino.durable), len(ino.cached)
	size := c.Size
	if size == SizeMixed {
		size = Size(1 + c.rng.IntN(Sizes-1))
	}
	switch size {
	case SizeDurable:
		return low
	case SizeCached:
		return high
	case SizeOfWrite:
		if len(ino.pending) > 0 {
			return max(low, ino.pending[c.rng.IntN(len(ino.pending))].end())
		}
	case SizeBetween:
		return low + c.rng.IntN(high-low+1)
	}
	return end
}

// dirty fills p, which lies at off in its file, with what other files left on
// the disk: half of the time from the same offset, where a record that does
// not say whose it is would look right.
func (c *cut) dirty(p []byte, off int) {
	if len(c.garbage) == 0 || len(p) == 0 {
		return
	}
	from := c.garbage[c.rng.IntN(len(c.garbage))]
	if c.rng.IntN(2) == 0 {
		off = c.rng.IntN(len(from)/sector+1) * sector
	}
	copy(p, from[min(off, len(from)):])
}

func sectorEnd(off int) int { return (off/sector + 1) * sector }

func roundUp(n int) int { return (n + sector - 1) / sector * sector }

// sectorsOf returns how many sectors a write touches.
func sectorsOf(w pendingWrite) int { return (roundUp(w.end()) - w.off/sector*sector) / sector }
