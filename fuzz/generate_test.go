package fuzz

import (
	"math/rand/v2"
	"time"
)

// mix says how often each kind of operation occurs, in relation to the others.
type mix [opKinds]int

var (
	writeMix = mix{opPut: 46, opDelete: 12, opBatch: 12, opSync: 3, opAdvance: 10, opReopen: 6, opKill: 5, opCompact: 3}
	// The crash campaign has either failing file operations or readers.
	faultMix  = writeMix.and(mix{opFault: 20})
	readerMix = writeMix.and(mix{opHold: 2, opSnapshot: 2, opFollow: 2, opRefresh: 3})
	modelMix  = writeMix.and(mix{
		opRead: 8, opHold: 4, opSnapshot: 3, opList: 8, opFollow: 2, opRefresh: 4, opRefused: 2,
	})
	outliveMix = mix{opPut: 20, opDelete: 8, opCompact: 5, opReopen: 8, opSnapshot: 6, opHold: 4, opFollow: 2, opRefresh: 4}
)

// and adds the kinds of another mix.
func (m mix) and(other mix) mix {
	for kind, n := range other {
		m[kind] += n
	}
	return m
}

// names of the kinds that occur.
func (m mix) names() (list []string) {
	for kind, n := range m {
		if n > 0 {
			list = append(list, kinds[kind].name)
		}
	}
	return list
}

// generator draws random histories.
type generator struct {
	*rand.Rand
	keys    int // use so many of keys
	segment int // segment size, which the largest values exceed three times
	mix     mix
	blobs   bool // half of the values get files of their own, with a BlobSize of 4 KiB
}

// history draws n operations.
func (g generator) history(n int) []operation {
	ops := make([]operation, n)
	for i := range ops {
		ops[i] = g.operation(g.kind())
	}
	return ops
}

func (g generator) kind() opKind {
	sum := 0
	for _, n := range g.mix {
		sum += n
	}
	left := g.IntN(sum)
	kind := 0
	for ; left >= g.mix[kind]; kind++ {
		left -= g.mix[kind]
	}
	return opKind(kind)
}

// operation draws one of a kind. Whatever the kind does not ask for stays zero.
func (g generator) operation(kind opKind) operation {
	o := operation{kind: kind}
	switch kind {
	case opPut:
		o.size, o.source = g.size(), g.source()
		fallthrough
	case opDelete:
		o.key, o.synced, o.needs = g.IntN(g.keys), g.IntN(8) == 0, g.condition()
		if o.source.fails() {
			o.needs = always
		}
	case opBatch:
		o.batch, o.guard, o.synced, o.needs = g.batch(), g.IntN(g.keys), g.IntN(8) == 0, g.condition()
	case opAdvance:
		o.delay = time.Duration(1+g.IntN(3)) * 50 * time.Millisecond
	case opReopen:
		o.late = g.IntN(2) == 0
	case opKill:
		o.dropCaches = g.IntN(2) == 0
	case opRead, opHold, opList:
		o.key, o.detail = g.IntN(g.keys), g.Uint64()
	case opFault:
		o.fault = g.fault()
	}
	return o
}

// size draws mostly tiny sizes, some of several sectors, and a few that need a
// segment of their own.
func (g generator) size() int {
	if g.blobs && g.IntN(2) == 0 {
		return 4<<10 + g.IntN(4<<10)
	}
	switch n := g.IntN(100); {
	case n < 5:
		return 0
	case n < 60:
		return g.IntN(40)
	case n < 85:
		return g.IntN(400)
	case n < 97:
		return g.IntN(g.segment)
	}
	return g.IntN(3 * g.segment)
}

// source draws a slice mostly.
func (g generator) source() source {
	if g.IntN(3) > 0 {
		return fromSlice
	}
	return source(g.IntN(len(sources)))
}

func (g generator) condition() condition {
	if g.IntN(5) > 0 {
		return always
	}
	return condition(g.IntN(len(conditions)))
}

func (g generator) batch() (list []operation) {
	for range 1 + g.IntN(6) {
		if g.IntN(3) == 0 {
			list = append(list, operation{kind: opDelete, key: g.IntN(g.keys)})
		} else {
			list = append(list, operation{kind: opPut, key: g.IntN(g.keys), size: g.size()})
		}
	}
	return list
}
