package fuzz

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opBatch    // puts and deletes at once
	opSync     // DB.Sync
	opAdvance  // the clock, so that timers fire
	opReopen   // a clean stop and start
	opKill     // the process ends and another starts
	opSnapshot // take a snapshot; a few stay open
	opFollow   // open read-only beside the writer
	opRefresh  // let the follower look
	opFault    // a file operation will fail
)

// operation is one step of a history. It prints as one line, which together
// with the seed is all it takes to repeat it.
type operation struct {
	kind   opKind
	key    int
	size   int  // of the value of a put
	stream bool // a put that does not say how long its value is
	synced bool // a write asks for SyncAlways, whatever the store does otherwise
	batch  []operation
	delay  time.Duration
	fault  fault

	dropCaches bool // when killed after a failed sync
}

func (o operation) String() string {
	mark := ""
	if o.stream {
		mark = " streamed"
	}
	if o.synced {
		mark += " synced"
	}
	switch o.kind {
	case opPut:
		return fmt.Sprintf("put %d size %d%s", o.key, o.size, mark)
	case opDelete:
		return fmt.Sprintf("delete %d%s", o.key, mark)
	case opBatch:
		parts := make([]string, len(o.batch))
		for i, b := range o.batch {
			parts[i] = b.String()
		}
		return "batch [" + strings.Join(parts, ", ") + "]" + mark
	case opAdvance:
		return "advance " + o.delay.String()
	case opKill:
		if o.dropCaches {
			return "kill, caches dropped"
		}
	case opFault:
		return o.fault.String()
	}
	return [...]string{
		opSync: "sync", opReopen: "reopen", opKill: "kill",
		opSnapshot: "snapshot", opFollow: "follow", opRefresh: "refresh",
	}[o.kind]
}

// generator draws random histories.
type generator struct {
	*rand.Rand
	keys    int  // use so many of keys
	segment int  // segment size, which the largest values exceed three times
	readers bool // snapshots and read-only opens
	faults  bool // failing file operations
}

// history draws n operations.
func (g generator) history(n int) []operation {
	ops := make([]operation, n)
	for i := range ops {
		ops[i] = g.operation()
	}
	return ops
}

func (g generator) operation() operation {
	switch n := g.IntN(100); {
	case n < 40:
		return g.put()
	case n < 52:
		return g.remove()
	case n < 64:
		return g.batch()
	case n < 67:
		return operation{kind: opSync}
	case n < 77:
		return operation{kind: opAdvance, delay: time.Duration(1+g.IntN(3)) * 50 * time.Millisecond}
	case n < 83:
		return operation{kind: opReopen}
	case n < 88:
		return operation{kind: opKill, dropCaches: g.IntN(2) == 0}
	case g.faults:
		return operation{kind: opFault, fault: g.fault()}
	case n < 94 && g.readers:
		kinds := []opKind{opSnapshot, opFollow, opRefresh, opRefresh}
		return operation{kind: kinds[g.IntN(len(kinds))]}
	}
	return g.put()
}

func (g generator) put() operation {
	return operation{kind: opPut, key: g.IntN(g.keys), size: g.size(), synced: g.IntN(8) == 0}
}

func (g generator) remove() operation {
	return operation{kind: opDelete, key: g.IntN(g.keys), synced: g.IntN(8) == 0}
}

// size draws mostly tiny sizes, some of several sectors, and a few that need a
// segment of their own.
func (g generator) size() int {
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

func (g generator) batch() operation {
	o := operation{kind: opBatch, synced: g.IntN(8) == 0}
	for range 1 + g.IntN(6) {
		if g.IntN(3) == 0 {
			o.batch = append(o.batch, operation{kind: opDelete, key: g.IntN(g.keys)})
		} else {
			o.batch = append(o.batch, operation{kind: opPut, key: g.IntN(g.keys), size: g.size()})
		}
	}
	return o
}
