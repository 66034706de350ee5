package index

import (
	"iter"
	"runtime"
	"sync/atomic"

	"github.com/google/btree"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Ordered is the keys of an index at one moment, in order, with the segments of
// that moment. It never changes until it is released. Its methods are safe for
// concurrent use.
type Ordered struct {
	keys   *keys
	seq    uint64
	len    int
	moment atomic.Pointer[moment] // nil once released
}

// moment is a clone of the tree and the segments that its items name.
type moment struct {
	tree *btree.BTreeG[item]
	segs *Segments
}

// Snapshot returns the keys as they are now. The first call builds the ordered
// index, which takes half a second to a second for a million keys; publishing
// waits for it, Lookup does not. Records that were not verified yet are verified
// on the way, since a damaged key or kind would hide the key: the error is a
// *segment.CorruptError. After Close it is ErrClosed.
func (x *Index) Snapshot() (*Ordered, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	segs := x.segs.Load()
	if segs == nil {
		return nil, ErrClosed
	}
	x.drain()
	if x.tree == nil {
		tree, err := x.build()
		if err != nil {
			return nil, err
		}
		x.tree = tree
	}
	o := &Ordered{keys: x.keys, seq: x.visible.Load(), len: x.tree.Len()}
	o.moment.Store(&moment{x.tree.Clone(), segs})
	return o, nil
}

// Len is the number of keys.
func (o *Ordered) Len() int { return o.len }

// Seq is the highest sequence number that the keys show.
func (o *Ordered) Seq() uint64 { return o.seq }

// Segments is what the keys lie in, nil once released.
func (o *Ordered) Segments() *Segments {
	if m := o.moment.Load(); m != nil {
		return m.segs
	}
	return nil
}

// Release lets go of the keys and the segments, and returns the segments if it
// is the first call. Reads that begin later return ErrReleased. Segments that a
// Location names stay valid.
func (o *Ordered) Release() *Segments {
	if m := o.moment.Swap(nil); m != nil {
		return m.segs
	}
	return nil
}

// Get finds the record of a key. It returns ErrAbsent or ErrReleased.
func (o *Ordered) Get(key []byte) (Location, error) {
	m := o.moment.Load()
	if m == nil {
		return Location{}, ErrReleased
	}
	vfs.BetweenSteps()
	probe := o.keys.lend(key)
	defer o.keys.giveBack(probe)
	it, ok := m.tree.Get(probe)
	if !ok {
		return Location{}, ErrAbsent
	}
	at := m.segs.At(it.ref)
	runtime.KeepAlive(m)
	return at, nil
}

// pageLen is how many items an iterator copies at a time. It yields them only
// after it has left the tree: user code may take as long as it likes, panic or
// iterate again, and nothing of the tree is on the stack.
const pageLen = 128

// Scan is an iteration over an Ordered in one direction. It reads the tree, and
// keys in segments, a page at a time and never during a yield; there it holds no
// segment but that of the record. It is for one goroutine.
type Scan struct {
	ordered *Ordered
	first   func(t *btree.BTreeG[item], page []item) []item
	next    func(t *btree.BTreeG[item], page []item, last item) []item
	err     error
}

// Ascend iterates over the records with start <= key < end in the order of
// their keys. A nil start or end is open.
func (o *Ordered) Ascend(start, end []byte) *Scan {
	return &Scan{
		ordered: o,
		first:   func(t *btree.BTreeG[item], page []item) []item { return o.firstUp(t, page, start, end) },
		next:    func(t *btree.BTreeG[item], page []item, last item) []item { return o.up(t, page, last, end) },
	}
}

// Descend iterates over the same records as Ascend, in descending order.
func (o *Ordered) Descend(start, end []byte) *Scan {
	return &Scan{
		ordered: o,
		first:   func(t *btree.BTreeG[item], page []item) []item { return o.firstDown(t, page, start, end) },
		next:    func(t *btree.BTreeG[item], page []item, last item) []item { return o.down(t, page, last, start) },
	}
}

// All iterates over the records. Once it has ended, Err tells whether it came to
// the end.
func (s *Scan) All() iter.Seq[Location] {
	return func(yield func(Location) bool) {
		s.err = nil
		var memory [pageLen]item
		page := s.page(func(t *btree.BTreeG[item]) []item { return s.first(t, memory[:0]) })
		for s.yieldAll(page, yield) && len(page) == pageLen {
			last := page[pageLen-1]
			page = s.page(func(t *btree.BTreeG[item]) []item { return s.next(t, memory[:0], last) })
		}
	}
}

// Err tells why the iteration ended early: ErrReleased, or a *vfs.FaultError if
// the disk can't read a key. It is nil if it came to the end or was left.
func (s *Scan) Err() error { return s.err }

// page reads a page of the tree. If a key in a segment can't be read, the page is
// empty and the iteration ends.
func (s *Scan) page(read func(*btree.BTreeG[item]) []item) (page []item) {
	defer vfs.EndGuard(vfs.BeginGuard(), &s.err)
	m := s.ordered.moment.Load()
	if m == nil {
		s.err = ErrReleased
		return nil
	}
	vfs.BetweenSteps()
	page = read(m.tree)
	runtime.KeepAlive(m)
	return page
}

// yieldAll yields a page and reports whether the iteration goes on.
func (s *Scan) yieldAll(page []item, yield func(Location) bool) bool {
	for _, it := range page {
		segs := s.ordered.Segments()
		if segs == nil {
			s.err = ErrReleased
			return false
		}
		at := segs.At(it.ref)
		runtime.KeepAlive(segs)
		if !yield(at) {
			return false
		}
	}
	return true
}

func (o *Ordered) firstUp(t *btree.BTreeG[item], page []item, start, end []byte) []item {
	from := o.keys.lend(start)
	defer o.keys.giveBack(from)
	return o.up(t, page, from, end)
}

// up fills a page with the items from from up to end, without from itself.
func (o *Ordered) up(t *btree.BTreeG[item], page []item, from item, end []byte) []item {
	bounded := end != nil
	stop := o.keys.lend(end)
	defer o.keys.giveBack(stop)
	t.AscendGreaterOrEqual(from, func(it item) bool {
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

func (o *Ordered) firstDown(t *btree.BTreeG[item], page []item, start, end []byte) []item {
	if end == nil {
		return o.fillDown(page, start, t.Descend)
	}
	from := o.keys.lend(end)
	defer o.keys.giveBack(from)
	return o.down(t, page, from, start)
}

// down fills a page with the items below from, down to start.
func (o *Ordered) down(t *btree.BTreeG[item], page []item, from item, start []byte) []item {
	return o.fillDown(page, start, func(visit btree.ItemIteratorG[item]) {
		first := true
		t.DescendLessOrEqual(from, func(it item) bool {
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
