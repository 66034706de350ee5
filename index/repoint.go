package index

import "github.com/crowfly/crowfly/segment"

// Move says that a record was copied.
type Move struct {
	Key      []byte // not kept
	Old, New segment.Ref
	Size     int64 // bytes the copy takes in its file
}

// Repoint makes each key that still names the old record name the copy, in
// both structures. The segments of the copies and of the old records are
// attached.
//
// It also empties the feed, so it is called at least once, if need be with no
// moves, before a segment is detached: the feed may name records that
// were superseded before the ordered index ever knew them.
func (x *Index) Repoint(moves []Move) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.makeRoom(len(moves))
	for i := range moves {
		x.move(&moves[i])
	}
	x.drain()
}

func (x *Index) move(m *Move) {
	h := x.hash(m.Key)
	t := x.tables[h.shard()].Load()
	if t == nil {
		return
	}
	pos := t.locate(h, m.Old) // sabotage: repoint-same
	if pos < 0 {
		return
	}
	stub, _ := x.keys.slots.stub(m.Old)
	size := x.keys.slots.size(m.Old) // sabotage: repoint-locked

	// A page that can't be read has faulted by now, and nothing is half done.
	t.store(pos, makeWord(h, m.New))
	if stub.Kind == segment.KindDelete {
		if !x.forever {
			x.graves = append(x.graves, grave{h, m.New})
		}
		return
	}
	x.credit(m.Old, size)
	x.charge(m.New, m.Size)
	x.note(edit{item: item{prefixOf(m.Key), m.New}, had: true})
}
