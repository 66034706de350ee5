package index

import (
	"encoding/binary"
	"iter"
	"slices"
)

// smallRun is the length up to which keys with a long common beginning are
// compared whole.
const smallRun = 16

// sort puts items in the order of their keys. Comparing whole keys would look
// at two records a comparison, and where keys share a long prefix nearly every
// comparison would. So runs that tie are sorted by a later part of the key,
// which is read once for each item.
func (k *keys) sort(items []item) {
	slices.SortFunc(items, comparePrefix)
	for run := range runs(items) {
		prefix := run[0].prefix
		k.sortTied(run, 8)
		for i := range run {
			run[i].prefix = prefix
		}
	}
}

// sortTied sorts keys that agree in their first depth bytes, as far as they
// have so many. It uses the prefix of the items for its own purpose.
func (k *keys) sortTied(items []item, depth int) {
	if len(items) <= smallRun {
		slices.SortFunc(items, k.compare)
		return
	}
	for i := range items {
		items[i].prefix = window(k.key(items[i].ref), depth)
	}
	slices.SortFunc(items, comparePrefix)
	for run := range runs(items) {
		if run[0].prefix&0xff == goesOn {
			k.sortTied(run, depth+windowLen)
		}
	}
}

const (
	windowLen = 7
	goesOn    = 16
)

// window is a part of a key as a number in the order of the keys:
//
//	63                        8 7          0
//	+--------------------------+-----------+
//	| 7 key bytes from depth   | length    |
//	+--------------------------+-----------+
//
// The length tells a key that ends from one that goes on with zeros: 9 to 15
// for 1 to 7 bytes, goesOn for more, and from 8 down for keys that end 0 to 7
// bytes before the window, which are shorter beginnings of all others.
func window(key []byte, depth int) uint64 {
	var b [8]byte
	if depth < len(key) {
		copy(b[:windowLen], key[depth:])
	}
	b[windowLen] = byte(min(max(len(key)-depth+8, 0), goesOn))
	return binary.BigEndian.Uint64(b[:])
}

// runs iterates over the stretches of two and more items with equal prefixes.
func runs(items []item) iter.Seq[[]item] {
	return func(yield func([]item) bool) {
		for from := 0; from < len(items); {
			to := from + 1
			for to < len(items) && items[to].prefix == items[from].prefix {
				to++
			}
			if to-from > 1 && !yield(items[from:to]) {
				return
			}
			from = to
		}
	}
}
