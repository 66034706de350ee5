package index

import (
	"cmp"
	"runtime"
	"slices"

	"github.com/google/btree"

	"github.com/crowfly/crowfly/segment"
)

const (
	degree   = 64
	feedSize = 4096
)

// edit is a change that the tree does not know yet.
type edit struct {
	item      // the record that the key names now; if gone, any with the key
	had  bool // the tree has the key by now
	gone bool // and is to lose it
}

// makeRoom makes sure that n edits can be noted.
func (x *Index) makeRoom(n int) {
	if x.tree == nil {
		return
	}
	if len(x.feed)+n > feedSize {
		x.drain()
	}
	x.feed = slices.Grow(x.feed, n)
}

// note puts an edit into the feed, if there is a tree.
func (x *Index) note(e edit) {
	if x.tree != nil {
		x.feed = append(x.feed, e)
	}
}

// drain tells the tree what is in the feed. If it meets a damaged key, which
// shows as an edit that does not fit, or a page that can't be read, the tree is
// dropped: the next Snapshot builds another or fails, while publishing, which
// needs no order, goes on.
func (x *Index) drain() {
	if x.tree == nil {
		return
	}
	fits := false
	defer func() {
		x.feed = x.feed[:0]
		if !fits {
			x.tree = nil
		}
		if p := recover(); p != nil && !isFault(p) {
			panic(p)
		}
	}()
	fits = applyEdits(x.tree, x.feed)
}

// applyEdits reports whether the tree was as every edit expected.
func applyEdits(tree *btree.BTreeG[item], edits []edit) bool {
	for _, e := range edits {
		var had bool
		if e.gone {
			_, had = tree.Delete(e.item)
		} else {
			_, had = tree.ReplaceOrInsert(e.item)
		}
		if had != e.had {
			return false
		}
	}
	return true
}

// isFault reports whether a panic comes from memory that could not be read.
func isFault(p any) bool {
	if _, ok := p.(runtime.Error); !ok {
		return false
	}
	_, ok := p.(interface{ Addr() uintptr })
	return ok
}

// build makes the tree of everything in the point index.
func (x *Index) build() (*btree.BTreeG[item], error) {
	items, err := x.collect()
	if err != nil {
		return nil, err
	}
	x.keys.sort(items)
	tree := btree.NewG(degree, x.keys.less)
	// Ascending inserts leave every node half full. The second pass fills
	// them up.
	for _, first := range []int{0, 1} {
		for i := first; i < len(items); i += 2 {
			tree.ReplaceOrInsert(items[i])
		}
	}
	return tree, nil
}

// collect returns an item for each live key. Records are read in the order of
// the files, so that a cold disk reads ahead.
func (x *Index) collect() ([]item, error) {
	words := make([]word, 0, x.live)
	for shard := range x.tables {
		t := x.tables[shard].Load()
		if t == nil {
			continue
		}
		for pos := range t.words {
			if w := t.load(pos); w.named() {
				words = append(words, w)
			}
		}
	}
	slices.SortFunc(words, func(a, b word) int { return cmp.Compare(a.ref(), b.ref()) })

	live := make([]item, 0, len(words))
	for _, w := range words {
		if !w.verified() {
			if err := x.keys.slots.prove(w.ref()); err != nil {
				return nil, err
			}
		}
		stub, _ := x.keys.slots.stub(w.ref())
		if stub.Kind != segment.KindDelete {
			live = append(live, item{prefixOf(stub.Key), w.ref()})
		}
	}
	return live, nil
}
