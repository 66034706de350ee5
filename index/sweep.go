package index

import "github.com/crowfly/crowfly/segment"

// orphan is a word that names a record in a segment that is gone, with what
// there is to know about the record.
type orphan struct {
	shard, pos int
	ref        segment.Ref
	prefix     uint64
	size       int64
	live       bool // it is no tombstone
}

// orphans finds all words that name a segment that is gone. The segments are
// still attached. If a page of one can't be read it faults, and nothing has
// changed.
func (x *Index) orphans(gone func(slot int) bool) (list []orphan) {
	if gone == nil {
		return nil
	}
	for shard := range x.tables {
		t := x.tables[shard].Load()
		if t == nil {
			continue
		}
		for pos := range t.words {
			if w := t.load(pos); w.named() && gone(w.ref().Slot()) {
				list = append(list, x.orphan(shard, pos, w.ref()))
			}
		}
	}
	return list
}

func (x *Index) orphan(shard, pos int, ref segment.Ref) orphan {
	stub, _ := x.keys.slots.stub(ref)
	return orphan{shard, pos, ref, prefixOf(stub.Key), x.keys.slots.size(ref), stub.Kind != segment.KindDelete}
}

// remove removes the keys of words that nothing newer has taken over since they
// were found, and touches no record. There is room in the feed.
func (x *Index) remove(list []orphan) {
	for _, o := range list {
		if w := x.tables[o.shard].Load().load(o.pos); !w.named() || w.ref() != o.ref {
			continue
		}
		if o.live {
			x.credit(o.ref, o.size)
			x.note(edit{item: item{o.prefix, o.ref}, had: true, gone: true})
		}
		x.erase(o.shard, o.pos)
	}
}
