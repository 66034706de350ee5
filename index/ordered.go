package index

import (
	"iter"

	"github.com/google/btree"

	"github.com/crowfly/crowfly/segment"
)

// Ordered is the keys of an index at one moment, in order. It never changes.
// Its methods are safe for concurrent use. They read keys in the segments of
// that moment, so whoever uses an Ordered keeps the state alive that it was
// taken with, and resolves the Refs there.
type Ordered struct {
	tree *btree.BTreeG[item]
	keys *keys

	around func(look func())
}

// Around returns the same keys for an iteration that looks at the tree, and at
// keys in segments, only from within around, a page at a time; never during a
// yield. If around does not call look, or recovers from a fault in it, the
// iteration ends.
func (o *Ordered) Around(around func(look func())) *Ordered {
	return &Ordered{o.tree, o.keys, around}
}

// look fills a page.
func (o *Ordered) look(fill func() []item) (page []item) {
	if o.around == nil {
		return fill()
	}
	o.around(func() { page = fill() })
	return page
}

// Snapshot returns the keys as they are now. It first calls inside under the
// index lock: whatever the caller loads there, the state and Visible, belongs to
// the same moment, and the state keeps the segments alive that Snapshot reads.
// If inside returns false there is no snapshot but nil. The first call builds the ordered index, which takes half a
// second to a second for a million keys; publishing waits for it, Lookup does
// not. Records that nobody has verified yet are verified on the way, since a
// damaged key or kind would hide the key: the error is a *segment.CorruptError.
func (x *Index) Snapshot(inside func() bool) (*Ordered, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !inside() {
		return nil, nil
	}
	x.drain()
	if x.tree == nil {
		tree, err := x.build()
		if err != nil {
			return nil, err
		}
		x.tree = tree
	}
	clone := x.tree.Clone()
	return &Ordered{tree: clone, keys: x.keys}, nil
}

// Len is the number of keys.
func (o *Ordered) Len() int { return o.tree.Len() }

// Get finds the record of a key.
func (o *Ordered) Get(key []byte) (segment.Ref, bool) {
	probe := o.keys.lend(key)
	defer o.keys.giveBack(probe)
	it, ok := o.tree.Get(probe)
	return it.ref, ok
}

// pageLen is how many items an iterator copies at a time. It yields them only
// after it has left the tree: user code may take as long as it likes, panic or
// iterate again, and nothing of the tree is on the stack.
const pageLen = 128

// Ascend iterates over the records with start <= key < end in the order of
// their keys. A nil start or end is open.
func (o *Ordered) Ascend(start, end []byte) iter.Seq[segment.Ref] {
	return func(yield func(segment.Ref) bool) {
		var memory [pageLen]item
		page := o.look(func() []item { return o.firstUp(memory[:0], start, end) })
		for yieldAll(page, yield) && len(page) == pageLen {
			last := page[pageLen-1]
			page = o.look(func() []item { return o.up(memory[:0], last, end) })
		}
	}
}

// Descend iterates over the same records as Ascend, the other way round.
func (o *Ordered) Descend(start, end []byte) iter.Seq[segment.Ref] {
	return func(yield func(segment.Ref) bool) {
		var memory [pageLen]item
		page := o.look(func() []item { return o.firstDown(memory[:0], start, end) })
		for yieldAll(page, yield) && len(page) == pageLen {
			last := page[pageLen-1]
			page = o.look(func() []item { return o.down(memory[:0], last, start) })
		}
	}
}

func yieldAll(page []item, yield func(segment.Ref) bool) bool {
	for _, it := range page {
		if !yield(it.ref) {
			return false
		}
	}
	return true
}

func (o *Ordered) firstUp(page []item, start, end []byte) []item {
	from := o.keys.lend(start)
	defer o.keys.giveBack(from)
	return o.up(page, from, end)
}

// up fills a page with the items from from up to end, without from itself.
func (o *Ordered) up(page []item, from item, end []byte) []item {
	bounded := end != nil
	stop := o.keys.lend(end)
	defer o.keys.giveBack(stop)
	o.tree.AscendGreaterOrEqual(from, func(it item) bool {
		if bounded && !o.keys.less(it, stop) {
			return false
		}
		if it != from {
			page = append(page, it)
		}
		return len(page) < pageLen
	})
	return page
}

func (o *Ordered) firstDown(page []item, start, end []byte) []item {
	if end == nil {
		return o.fillDown(page, start, o.tree.Descend)
	}
	from := o.keys.lend(end)
	defer o.keys.giveBack(from)
	return o.down(page, from, start)
}

// down fills a page with the items below from, down to start.
func (o *Ordered) down(page []item, from item, start []byte) []item {
	return o.fillDown(page, start, func(visit btree.ItemIteratorG[item]) {
		first := true
		o.tree.DescendLessOrEqual(from, func(it item) bool {
			isFrom := first && !o.keys.less(it, from)
			first = false
			return isFrom || visit(it)
		})
	})
}

// fillDown fills a page with what descend visits, down to start.
func (o *Ordered) fillDown(page []item, start []byte, descend func(btree.ItemIteratorG[item])) []item {
	stop := o.keys.lend(start)
	defer o.keys.giveBack(stop)
	descend(func(it item) bool {
		if o.keys.less(it, stop) {
			return false
		}
		page = append(page, it)
		return len(page) < pageLen
	})
	return page
}
