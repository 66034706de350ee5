package blockdisk

import (
	"fmt"
	"maps"
	"math/rand/v2"
)

const block = 4 << 10 // what a disk is taken to write in one piece

// request is a write, or a flush with neither data nor zeros.
type request struct {
	Off   int64
	Data  []byte
	Zeros int // a write of so many zeros, without data
}

func (r request) flush() bool { return len(r.Data)+r.Zeros == 0 }

// mode is which of the blocks written since the last flush a power cut keeps.
type mode int

const (
	none mode = iota
	all
	prefix
	random
	allButOne
	onlyOne
	modes // their number
)

func (m mode) String() string {
	return [modes]string{"none", "all", "prefix", "random", "all-but-one", "only-one"}[m]
}

// powerCut is one way for the power to fail. The same log and the same cut
// give the same disk.
type powerCut struct {
	at   int // so many requests of the log got to the disk
	mode mode
	seed uint64
}

func (c powerCut) String() string {
	return fmt.Sprintf("cut %d, mode %v, seed %d", c.at, c.mode, c.seed)
}

// powerCuts makes up n cuts in a part of a log, half of them just before a
// flush, when most is pending.
func powerCuts(rng *rand.Rand, log []request, from, to, n int) []powerCut {
	list := make([]powerCut, n)
	for i := range list {
		at := from + rng.IntN(to-from+1)
		if rng.IntN(2) == 0 {
			for at < to && !log[at].flush() {
				at++
			}
		}
		list[i] = powerCut{at, mode(i % int(modes)), rng.Uint64N(1 << 32)}
	}
	return list
}

// content is what lies on a disk: the blocks that are not all zero, by
// number. They are never changed, only replaced.
type content map[int64][]byte

// piece is the part of a request that lies in one block.
type piece struct {
	number int64
	from   int
	data   []byte // nil for zeros
	n      int
}

func pieces(log []request) (list []piece) {
	for _, r := range log {
		n := len(r.Data) + r.Zeros
		for done := 0; done < n; {
			off := r.Off + int64(done)
			p := piece{number: off / block, from: int(off % block)}
			p.n = min(block-p.from, n-done)
			if r.Data != nil {
				p.data = r.Data[done : done+p.n]
			}
			done += p.n
			list = append(list, p)
		}
	}
	return list
}

func (c content) write(p piece) {
	if p.n == block && p.data == nil {
		delete(c, p.number)
		return
	}
	if p.n == block {
		c[p.number] = p.data
		return
	}
	b := make([]byte, block)
	copy(b, c[p.number])
	if p.data == nil {
		clear(b[p.from : p.from+p.n])
	}
	copy(b[p.from:], p.data)
	c[p.number] = b
}

// replay is a disk at the last flush before some position of its log. It only
// goes forward.
type replay struct {
	log  []request
	done int // requests that are durable
	disk content
}

// cut returns what a power cut leaves.
func (r *replay) cut(c powerCut) content {
	flushed := r.done
	for i := r.done; i < c.at; i++ {
		if r.log[i].flush() {
			flushed = i + 1
		}
	}
	for _, p := range pieces(r.log[r.done:flushed]) {
		r.disk.write(p)
	}
	r.done = flushed
	left := maps.Clone(r.disk)
	pending := pieces(r.log[r.done:c.at])
	keep := c.keeps(len(pending))
	for i, p := range pending {
		if keep(i) {
			left.write(p)
		}
	}
	return left
}

// keeps decides which of n things are kept.
func (c powerCut) keeps(n int) func(i int) bool {
	rng := rand.New(rand.NewPCG(c.seed, uint64(c.at)))
	k := rng.IntN(n + 1)
	one := rng.IntN(max(n, 1))
	return func(i int) bool {
		switch c.mode {
		case all:
			return true
		case prefix:
			return i < k
		case random:
			return rng.IntN(2) == 0
		case allButOne:
			return i != one
		case onlyOne:
			return i == one
		}
		return false
	}
}
