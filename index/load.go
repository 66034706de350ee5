package index

import (
	"iter"

	"github.com/crowfly/crowfly/segment"
)

// Load puts records into an index that has nothing but what earlier calls of
// Load have put there, and no readers. Each is the only one of its key, in all
// calls. So the segments are not looked at, which makes this the way to fill
// an index from hints. Tombstones have to be counted apart, see CountUnnamed. What else there is to know comes behind, by Merge.
//
// The index is locked until the last record has come. A key is used before
// the next one is asked for.
func (x *Index) Load(records iter.Seq[*Change]) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for c := range records {
		h := x.hash(c.Key)
		x.reserve(h.shard(), 1)
		x.tables[h.shard()].Load().add(makeWord(h, c.Ref))
		x.fills[h.shard()].used++
		x.newest = max(x.newest, c.Seq)
		switch {
		case c.Kind != segment.KindDelete:
			x.charge(c.Ref, c.Size)
		case !x.forever:
			x.graves = append(x.graves, grave{h, c.Ref})
		}
	}
}
