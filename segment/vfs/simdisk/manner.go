package simdisk

import "math/rand/v2"

// Manner is the way in which a power cut loses what is not durable. The zero
// Manner loses each file's sectors and size in a way of its own, and any of
// the directory operations.
type Manner struct {
	Keep    Keep // which sectors of a file and which directory operations survive
	Size    Size // how long a file is
	Ordered bool // directory operations survive in order, as with a journal
	Garbage bool // sectors that were never written hold what other files left there
}

// Keep says which of several things survive.
type Keep int

const (
	KeepMixed Keep = iota // for each file one of the others
	KeepNone
	KeepAll
	KeepFirst // those before some moment
	KeepRandom
	KeepAllButOne
	KeepOne

	Keeps = iota // their number
)

// Size says how long a file with pending writes is after a power cut.
type Size int

const (
	SizeMixed   Size = iota // for each file one of the others
	SizeOfBytes             // it ends with the last byte that survived
	SizeDurable
	SizeCached
	SizeOfWrite // as after one of the writes
	SizeBetween // anything from durable to cached

	Sizes = iota // their number
)

// choice decides about n things in order.
type choice struct {
	rng  *rand.Rand
	keep Keep
	i, k int
}

func newChoice(rng *rand.Rand, keep Keep, n int) choice {
	c := choice{rng: rng, keep: keep}
	switch keep {
	case KeepFirst:
		c.k = rng.IntN(n + 1)
	case KeepAllButOne, KeepOne:
		c.k = rng.IntN(max(n, 1))
	}
	return c
}

// next says whether the next thing survives.
func (c *choice) next() bool {
	i := c.i
	c.i++
	switch c.keep {
	case KeepAll:
		return true
	case KeepFirst:
		return i < c.k
	case KeepRandom:
		return c.rng.Uint64()&1 == 0
	case KeepAllButOne:
		return i != c.k
	case KeepOne:
		return i == c.k
	}
	return false
}
