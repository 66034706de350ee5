package blockdisk

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// outcome is what a power cut left in the directory: contents by name.
type outcome map[string][]byte

// possible tells why the simulated disk could not leave this outcome after
// these operations, if the power failed when the log of the disk was at cut.
// It returns nil if it could.
//
// What an operation did is durable if it ended before the beginning of a sync,
// of its file or for names of the directory, that ended before the cut. What
// began before the cut and is not durable is pending. The rules are those of
// simdisk: any subset of the pending operations on names has taken place; of a
// file everything durable is there, each sector of each pending write is in or
// out, and the size is anything from the durable one to that with all writes.
// With dirty set, sectors never written may hold what was durable in other
// files, otherwise only zeros, as on file systems that take care.
func possible(ops []*fileOp, out outcome, cut uint64, dirty bool) error {
	left := after(ops, cut)
	p := &prover{left, out, make(map[namedFile]error), dirty}
	touched := make(map[string]bool)
	for _, group := range left.groups() {
		names := left.namesOf(group)
		for name := range names {
			touched[name] = true
		}
		if err := p.group(group, names); err != nil {
			return err
		}
	}
	for name := range out {
		if _, ok := left.names[name]; !ok && !touched[name] {
			return fmt.Errorf("%s exists", name)
		}
	}
	for name, file := range left.names {
		if !touched[name] {
			if err := p.is(name, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// remains is what is durable at a cut, and what is pending.
type remains struct {
	names   map[string]int
	pending []*fileOp // on names
	files   map[int]*contents
}

type contents struct {
	durable []byte
	pending []*fileOp // writes
}

const directory = -1 // in place of a file

func after(ops []*fileOp, cut uint64) *remains {
	synced := make(map[int]int) // by file, the beginning of the last sync that ended
	for _, o := range ops {
		if (o.Kind == opSync || o.Kind == opSyncDir) && o.doneBy(cut) {
			synced[o.target()] = max(synced[o.target()], o.Begin.Seq)
		}
	}
	left := &remains{names: make(map[string]int), files: make(map[int]*contents)}
	for _, o := range ops {
		if o.Begin.Position < cut {
			left.add(o, o.End.Seq > 0 && o.End.Seq < synced[o.target()])
		}
	}
	return left
}

// all reports whether everything pending has taken place.
func (l *remains) all(out outcome) bool {
	names := maps.Clone(l.names)
	for _, o := range l.pending {
		o.apply(names)
	}
	return maps.EqualFunc(names, out, func(file int, data []byte) bool {
		whole := contents{durable: slices.Clone(l.files[file].durable)}
		for _, w := range l.files[file].pending {
			whole.add(w, true)
		}
		return bytes.Equal(whole.durable, data)
	})
}

// target is what has to be synced for the operation to be durable.
func (o *fileOp) target() int {
	if o.Kind == opWrite || o.Kind == opSync {
		return o.File
	}
	return directory
}

func (l *remains) add(o *fileOp, durable bool) {
	if o.Kind == opCreate {
		l.files[o.File] = &contents{}
	}
	switch o.Kind {
	case opWrite:
		l.files[o.File].add(o, durable)
	case opCreate, opRename, opRemove:
		if durable {
			o.apply(l.names)
		} else {
			l.pending = append(l.pending, o)
		}
	}
}

// apply does an operation on names, which must make sense without those before
// it: what it carries is what the entry under its name is from now on.
func (o *fileOp) apply(names map[string]int) {
	if o.Kind == opRemove {
		if file, ok := names[o.Name]; ok && file == o.File {
			delete(names, o.Name)
		}
		return
	}
	maps.DeleteFunc(names, func(_ string, file int) bool { return file == o.File })
	names[o.Name] = o.File
}

func (c *contents) add(o *fileOp, durable bool) {
	if !durable {
		c.pending = append(c.pending, o)
		return
	}
	if grow := o.Off + len(o.Data) - len(c.durable); grow > 0 {
		c.durable = append(c.durable, make([]byte, grow)...)
	}
	copy(c.durable[o.Off:], o.Data)
}

// groups splits the pending operations on names into such that have nothing to
// do with each other: no file and no name in common.
func (l *remains) groups() (groups [][]*fileOp) {
	for _, o := range l.pending {
		joined := []*fileOp{o}
		groups = slices.DeleteFunc(groups, func(g []*fileOp) bool {
			meet := l.meet(g, o)
			if meet {
				joined = slices.Concat(g, joined)
			}
			return meet
		})
		slices.SortFunc(joined, func(a, b *fileOp) int { return a.Begin.Seq - b.Begin.Seq })
		groups = append(groups, joined)
	}
	return groups
}

func (l *remains) meet(group []*fileOp, o *fileOp) bool {
	mine := l.namesOf([]*fileOp{o})
	for name := range l.namesOf(group) {
		if mine[name] {
			return true
		}
	}
	return slices.ContainsFunc(group, func(g *fileOp) bool { return g.File == o.File })
}

// namesOf returns all names that a group of operations can change.
func (l *remains) namesOf(group []*fileOp) map[string]bool {
	names := make(map[string]bool)
	for _, o := range group {
		names[o.Name] = true
		for name, file := range l.names {
			if file == o.File {
				names[name] = true
			}
		}
	}
	return names
}

// prover compares remains with an outcome.
type prover struct {
	left  *remains
	out   outcome
	known map[namedFile]error
	dirty bool
}

type namedFile struct {
	name string
	file int
}

// group looks for a subset of a group of operations after which its names are
// those of the outcome.
func (p *prover) group(group []*fileOp, touched map[string]bool) (err error) {
	const most = 16
	if len(group) > most {
		return fmt.Errorf("%d operations on the same names are pending, too many to try", len(group))
	}
	for subset := range 1 << len(group) {
		names := maps.Clone(p.left.names)
		for i, o := range group {
			if subset>>i&1 == 1 {
				o.apply(names)
			}
		}
		if err = p.names(names, touched); err == nil {
			return nil
		}
	}
	return fmt.Errorf("with all pending operations on it: %w", err)
}

// names compares some names and the contents of their files.
func (p *prover) names(names map[string]int, some map[string]bool) error {
	for name := range some {
		file, ok := names[name]
		if !ok {
			if _, exists := p.out[name]; exists {
				return fmt.Errorf("%s exists", name)
			}
			continue
		}
		if err := p.is(name, file); err != nil {
			return err
		}
	}
	return nil
}

// is tells why what has this name in the outcome is not that file.
func (p *prover) is(name string, file int) error {
	key := namedFile{name, file}
	if err, ok := p.known[key]; ok {
		return err
	}
	err := p.compare(name, file)
	p.known[key] = err
	return err
}

func (p *prover) compare(name string, file int) error {
	data, ok := p.out[name]
	if !ok {
		return fmt.Errorf("%s is missing", name)
	}
	err := p.left.files[file].couldBe(data, nil, 0)
	if err == nil || !p.dirty {
		return wrap(name, err)
	}
	for _, other := range p.left.files {
		for from := 0; from <= len(other.durable); from += sector {
			if p.left.files[file].couldBe(data, other.durable, from) == nil {
				return nil
			}
		}
	}
	return wrap(name, err)
}

func wrap(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

const sector = 512

// couldBe tells why a file can't be left with this data. Garbage is what lies
// behind its durable sectors if nothing was written there: the first of it, or
// if that is what fits the sector at from.
func (c *contents) couldBe(data, garbage []byte, from int) error {
	low, high := len(c.durable), len(c.durable)
	first := low // nothing below is pending
	for _, w := range c.pending {
		high = max(high, w.Off+len(w.Data))
		first = min(first, w.Off)
	}
	if len(data) < low || len(data) > high {
		return fmt.Errorf("has %d bytes, not between %d and %d", len(data), low, high)
	}
	whole := first / sector * sector
	if !bytes.Equal(data[:whole], c.durable[:whole]) {
		return fmt.Errorf("durable bytes below %d changed", whole)
	}
	fresh := (low + sector - 1) / sector * sector
	for at := whole; at < len(data); at += sector {
		base := make([]byte, sector)
		copy(base, c.durable[min(at, low):])
		if off := at - fresh + from; at >= fresh && off < len(garbage) {
			copy(base, garbage[off:])
		}
		if got := data[at:min(at+sector, len(data))]; !reachable(base, got, at, c.touching(at)) {
			return fmt.Errorf("sector at %d of %d is neither old nor new; %d bytes are durable", at, len(data), low)
		}
	}
	return nil
}

// touching returns the pending writes that have bytes in the sector at off.
func (c *contents) touching(off int) (list []*fileOp) {
	for _, w := range c.pending {
		if w.Off < off+sector && off < w.Off+len(w.Data) {
			list = append(list, w)
		}
	}
	return list
}

// reachable reports whether some of the writes, in order, turn the sector at
// off from base into what begins with got.
func reachable(base, got []byte, off int, writes []*fileOp) bool {
	if len(writes) == 0 {
		return bytes.HasPrefix(base, got)
	}
	if reachable(base, got, off, writes[1:]) {
		return true
	}
	w, next := writes[0], slices.Clone(base)
	from := max(w.Off, off)
	copy(next[from-off:], w.Data[from-w.Off:])
	return reachable(next, got, off, writes[1:])
}
