package db

import (
	"math/bits"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
)

func entries(sizes ...int64) (list []manifest.Entry) {
	for i, size := range sizes {
		list = append(list, manifest.Entry{ID: segment.ID(i + 1), Length: size})
	}
	return list
}

func TestChooseFold(t *testing.T) {
	const most = 1000
	for _, c := range []struct {
		what  string
		sizes []int64 // the oldest first
		want  []segment.ID
	}{
		{"nothing", nil, nil},
		{"one", []int64{10}, nil},
		{"two alike", []int64{10, 10}, []segment.ID{2, 1}},
		{"one too large for the newer one", []int64{41, 10}, nil},
		{"one just small enough", []int64{40, 10}, []segment.ID{2, 1}},
		{"large ones stay", []int64{900, 251, 10, 10}, []segment.ID{4, 3}},
		{"large ones do not divide", []int64{10, 10, 10, 900, 10, 10}, []segment.ID{6, 5, 3, 2, 1}},
		{"no more than a segment holds", []int64{250, 250, 250, 250, 250}, []segment.ID{5, 4, 3, 2}},
		{"many older ones before two tiny new ones", []int64{100, 100, 100, 1, 1}, []segment.ID{3, 2, 1}},
		{"the newest of two as many", []int64{100, 100, 1, 1}, []segment.ID{4, 3}},
	} {
		if got := chooseFold(entries(c.sizes...), most); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	active := entries(10, 10, 10)
	active[2].Active = true
	if got := chooseFold(active, most); !slices.Equal(got, []segment.ID{2, 1}) {
		t.Errorf("the active segment: %v", got)
	}
}

// TestFoldingEnds promises that few small segments stay, whatever runs have left,
// when each later run leaves a tiny one and folds once.
func TestFoldingEnds(t *testing.T) {
	const most = 4 << 20
	for _, left := range []int64{200, 10 << 10, 100 << 10, most / foldRatio} {
		var segs []manifest.Entry
		id := segment.ID(1)
		add := func(size int64) {
			segs = append(segs, manifest.Entry{ID: id, Length: size})
			id++
		}
		for range 200 {
			add(left)
		}
		for range 600 {
			var size int64
			chosen := chooseFold(segs, most)
			segs = slices.DeleteFunc(segs, func(e manifest.Entry) bool {
				in := slices.Contains(chosen, e.ID)
				if in {
					size += e.Length
				}
				return in
			})
			if chosen != nil {
				add(size)
			}
			add(300)
		}
		small := slices.DeleteFunc(slices.Clone(segs), func(e manifest.Entry) bool { return e.Length > most/foldRatio })
		if bound := bits.Len(most); len(small) > bound {
			t.Errorf("after runs that left %d bytes each %d small segments stay, want at most %d", left, len(small), bound)
		}
	}
}
