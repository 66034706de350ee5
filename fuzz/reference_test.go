package fuzz

import (
	"fmt"
	"slices"
	"strings"
)

// keys are all keys that histories use. They are few, so that most writes
// overwrite something, and awkward for an ordered index: beginnings of each
// other, zeros, a long common beginning, nothing behind.
var keys = [...]string{
	"a", "ab", "\x00", "\xff\xff", "b",
	"shared/beginning/longer/than/a/word/1",
	"shared/beginning/longer/than/a/word/2",
	strings.Repeat("long", 100),
	"a\x00", "\xff", "shared/", strings.Repeat("k", 1<<16-1),
}

// keyBytes are the same, as the store wants them.
var keyBytes = func() (list [len(keys)][]byte) {
	for k, key := range keys {
		list[k] = []byte(key)
	}
	return list
}()

// state is what a store contains: by key, the number of the value in
// reference.values, 0 for none.
type state [len(keys)]uint16

func (s state) String() string {
	var b strings.Builder
	for k, v := range s {
		if v != 0 {
			fmt.Fprintf(&b, " %d:v%d", k, v)
		}
	}
	return "{" + strings.TrimSpace(b.String()) + "}"
}

func (s state) len() (n int) {
	for _, v := range s {
		if v != 0 {
			n++
		}
	}
	return n
}

// change is one put, or with value 0 a delete.
type change struct {
	key   int
	value uint16
}

// commit is a batch of changes in the order in which the store got them.
type commit struct {
	changes []change
	maybe   bool // under way, or failed in a way that leaves the outcome open
}

func (s state) with(c commit) state {
	for _, ch := range c.changes {
		s[ch.key] = ch.value
	}
	return s
}

// reference knows what a store has to contain. It has two moods. While the
// store is being opened there is a choice of states, and which one it is the
// store decides. Then that one is settled, and commits follow.
type reference struct {
	values [][]byte // by number; number 0 is no value, number 1 the empty one

	opening  bool
	mayFind  []state // what Open may find
	mayLeave []state // what it may find after a power cut while it is at work

	settled state
	commits []commit
	durable int // so many of the commits survive a power cut
}

func newReference() *reference {
	return &reference{
		values:  [][]byte{nil, {}},
		opening: true, mayFind: []state{{}}, mayLeave: []state{{}},
	}
}

// fork returns the reference for a disk on which the process, or with power
// set the whole system, stopped just now.
func (r *reference) fork(power bool) *reference {
	f := &reference{values: slices.Clip(r.values), opening: true, mayLeave: r.afterCut()}
	if f.mayFind = f.mayLeave; !power {
		f.mayFind = r.afterKill()
	}
	return f
}

// stopped says that the process ended, by itself or not, and another is about
// to open the store.
func (r *reference) stopped() {
	r.mayFind, r.mayLeave = r.afterKill(), r.afterCut()
	r.opening = true
}

// settle takes what an Open found. All of it is durable from then on.
func (r *reference) settle(found state) error {
	if !slices.Contains(r.mayFind, found) {
		return fmt.Errorf("the store has %v, possible are %v", found, r.mayFind)
	}
	r.opening, r.settled, r.commits, r.durable = false, found, nil, 0
	return nil
}

// begin notes a commit that is under way.
func (r *reference) begin(changes []change) {
	r.commits = append(r.commits, commit{changes, true})
}

// acknowledge notes that the last commit was.
func (r *reference) acknowledge(durable bool) {
	r.commits[len(r.commits)-1].maybe = false
	if durable {
		r.sync()
	}
}

// refuse notes that the last commit can't have taken place.
func (r *reference) refuse() { r.commits = r.commits[:len(r.commits)-1] }

// sync notes that everything acknowledged is durable.
func (r *reference) sync() { r.durable = len(r.commits) }

// open is the number of commits whose outcome is open.
func (r *reference) open() (n int) {
	for _, c := range r.commits {
		if c.maybe {
			n++
		}
	}
	return n
}

// now is what readers see.
func (r *reference) now() state {
	s := r.settled
	for _, c := range r.commits {
		if !c.maybe {
			s = s.with(c)
		}
	}
	return s
}

// afterKill is what the next process may find: everything acknowledged.
func (r *reference) afterKill() []state {
	if r.opening {
		return r.mayFind
	}
	return r.possible(len(r.commits))
}

// afterCut is what a power cut may leave: everything durable, and of the rest
// the commits before any moment.
func (r *reference) afterCut() []state {
	if r.opening {
		return r.mayLeave
	}
	return r.possible(r.durable)
}

// possible returns the states after at least from commits, with and without
// each of those whose outcome is open.
func (r *reference) possible(from int) (list []state) {
	var walk func(s state, i int)
	walk = func(s state, i int) {
		if i >= from && !slices.Contains(list, s) {
			list = append(list, s)
		}
		if i == len(r.commits) {
			return
		}
		walk(s.with(r.commits[i]), i+1)
		if r.commits[i].maybe {
			walk(s, i+1)
		}
	}
	walk(r.settled, 0)
	return list
}

// number returns the number of a value that came out of a store.
func (r *reference) number(value []byte) (uint16, error) {
	n := 1
	switch len(value) {
	case 0:
	case 1:
		return 0, fmt.Errorf("value %x was never written", value)
	default:
		n = int(value[0]) | int(value[1])<<8
	}
	if n == 0 || n >= len(r.values) || !slices.Equal(r.values[n], value) {
		return 0, fmt.Errorf("value of %d bytes beginning with %x was never written", len(value), value[:min(len(value), 16)])
	}
	return uint16(n), nil
}

// newValue makes up a value that no other put has, unless it is empty. It
// says its number itself.
func (r *reference) newValue(size int) uint16 {
	if size == 0 {
		return 1
	}
	n := len(r.values)
	value := make([]byte, max(size, 2))
	for i := range value {
		value[i] = byte(n>>(i%2*8)) ^ byte(i/2)
	}
	r.values = append(r.values, value)
	return uint16(n)
}
