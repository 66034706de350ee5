package fuzz

import (
	"fmt"
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
	opRead     // a value piece by piece
	opHold     // a value; a few stay open
	opSnapshot // take a snapshot; a few stay open
	opList     // a part of a snapshot
	opFollow   // open read-only beside the writer
	opRefresh  // let the follower look
	opRefused  // writes that no store may take
	opCompact  // DB.Compact
	opFault    // a file operation will fail

	opKinds = iota // their number
)

// kinds has for each kind of operation its name and what it does. To add one
// takes a line here, a method of session, and a share in the mixes of
// generate_test.go.
var kinds = [opKinds]struct {
	name string
	do   func(*session, operation) error
}{
	opPut:      {"put", (*session).write},
	opDelete:   {"delete", (*session).write},
	opBatch:    {"batch", (*session).write},
	opSync:     {"sync", (*session).sync},
	opAdvance:  {"advance", (*session).advance},
	opReopen:   {"reopen", (*session).reopen},
	opKill:     {"kill", (*session).kill},
	opRead:     {"read", (*session).readPieces},
	opHold:     {"hold", (*session).holdValue},
	opSnapshot: {"snapshot", (*session).takeSnapshot},
	opList:     {"list", (*session).list},
	opFollow:   {"follow", (*session).follow},
	opRefresh:  {"refresh", (*session).refresh},
	opRefused:  {"refused", (*session).refused},
	opCompact:  {"compact", (*session).compact},
	opFault:    {"fault", (*session).prepareFault},
}

// operation is one step of a history. It prints as one line, which together
// with the seed is all it takes to repeat it.
type operation struct {
	kind   opKind
	key    int
	size   int  // of the value of a put
	synced bool // a write asks for SyncAlways, whatever the store does otherwise
	source source
	needs  condition
	guard  int // the key that the condition of a batch is about
	batch  []operation
	delay  time.Duration
	fault  fault
	detail uint64 // decides which pieces are read

	dropCaches bool // when killed after a failed sync
	late       bool // on reopening, handles outlive the store they are of
}

// source is where the value of a put comes from.
type source uint8

const (
	fromSlice   source = iota
	fromReader         // of known size
	fromStream         // of unknown size
	fromShort          // the reader has less than it should
	fromLong           // it has more
	fromBroken         // it fails half-way
	fromAborted        // the context ends half-way
)

var sources = [...]string{"", " reader", " stream", " short reader", " long reader", " broken reader", " aborted"}

// fails reports whether nothing can come of a put.
func (s source) fails() bool { return s >= fromShort }

// condition is what a write requires of a key.
type condition uint8

const (
	always       condition = iota
	ifAbsent               // it has no value
	ifCurrent              // it has the version it has now
	ifRemembered           // it has the version it had when last asked for
)

var conditions = [...]string{"", " if absent", " if current", " if as remembered"}

func (o operation) String() string {
	var b strings.Builder
	b.WriteString(kinds[o.kind].name)
	switch o.kind {
	case opPut:
		fmt.Fprintf(&b, " %d size %d%s", o.key, o.size, sources[o.source])
	case opDelete, opHold:
		fmt.Fprintf(&b, " %d", o.key)
	case opRead:
		fmt.Fprintf(&b, " %d detail %d", o.key, o.detail)
	case opList:
		fmt.Fprintf(&b, " detail %d", o.detail)
	case opBatch:
		parts := make([]string, len(o.batch))
		for i, p := range o.batch {
			parts[i] = p.String()
		}
		fmt.Fprintf(&b, " [%s] guard %d", strings.Join(parts, ", "), o.guard)
	case opAdvance:
		fmt.Fprintf(&b, " %v", o.delay)
	case opFault:
		fmt.Fprintf(&b, ": %v", o.fault)
	}
	b.WriteString(conditions[o.needs])
	for mark, set := range map[string]bool{" synced": o.synced, ", caches dropped": o.dropCaches, ", handles later": o.late} {
		if set {
			b.WriteString(mark)
		}
	}
	return b.String()
}
