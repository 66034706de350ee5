package index

import (
	"bytes"
	"slices"

	"github.com/crowfly/crowfly/segment"
)

// Change is a record that was written and is now to be found.
type Change struct {
	Key  []byte // not kept
	Ref  segment.Ref
	Seq  uint64
	Kind segment.Kind // put, blobref or delete
	Size int64        // bytes the record takes in its file
}

// Publish lets readers find a group of records: all of them, or for a moment
// longer none. It raises Visible to visible, which covers the group, once
// every record of it is in place, and never lowers it. While an index is being
// filled and has no readers yet, 0 leaves Visible as it is; before the first
// reader comes, Publish(nil, seq) sets it.
//
// A record older than the one that is there already is ignored. One with the
// same sequence number is a copy of it and takes its place, unless it would
// replace a tombstone by something else.
//
// The segments of all records are attached. If reading a page of an older record
// faults, nothing has been published.
//
// It returns the blobrefs that no key names any more: only readers that hold
// their blobs still need them.
func (x *Index) Publish(changes []Change, visible uint64) (dead []Location) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.publish(changes, visible, nil)
}

// Merge is Publish for records of which some may be older than what is there.
// A record that nobody has verified since it was opened, because a hint told
// of it, is verified before its key and sequence number decide anything: a
// flipped bit in them would bring an older version back. If one is damaged,
// nothing has been published and the error is a *segment.CorruptError.
//
// leaving is for followers: the segments that are about to be detached. Keys
// whose newest record lies in one are removed at the same moment: a record that
// left the manifest and was not superseded by a copy is deleted. If a page of
// such a record faults, readers see what they saw before, some of it in copies.
func (x *Index) Merge(changes []Change, visible uint64, leaving ...segment.ID) (dead []Location, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range changes {
		if err := x.prove(changes[i].Key); err != nil { // sabotage: prove-hinted
			return nil, err
		}
	}
	if len(leaving) == 0 {
		return x.publish(changes, visible, nil), nil
	}
	gone := x.slotsOf(leaving)
	copies, news := x.split(changes)
	dead = x.publish(copies, 0, nil)
	dead = append(dead, x.publish(news, visible, gone)...)
	x.drain() // while the segments of what was removed are there
	return dead, nil
}

// slotsOf reports of a slot whether its segment is one of those.
func (x *Index) slotsOf(ids []segment.ID) func(slot int) bool {
	segs := x.segs.Load()
	return func(slot int) bool {
		seg := segs.bySlot[slot]
		return seg != nil && slices.Contains(ids, seg.ID())
	}
}

// split separates changes that tell readers nothing new from the others.
func (x *Index) split(changes []Change) (copies, news []Change) {
	seen := x.visible.Load()
	for _, c := range changes {
		if c.Seq <= seen {
			copies = append(copies, c)
		} else {
			news = append(news, c)
		}
	}
	return copies, news
}

// prove verifies the records that the words with the hash of a key name.
func (x *Index) prove(key []byte) error {
	h := x.hash(key)
	t := x.tables[h.shard()].Load()
	if t == nil {
		return nil
	}
	for pos := t.home(h.bits()); ; pos = t.next(pos) {
		w := t.load(pos)
		if w == empty {
			return nil
		}
		if w.named() && w.bits() == h.bits() && !w.verified() {
			if err := x.keys.slots.prove(w.ref()); err != nil {
				return err
			}
		}
	}
}

// publish is Publish under the lock. It removes keys too, see Merge.
func (x *Index) publish(changes []Change, visible uint64, gone func(slot int) bool) (dead []Location) {
	x.prepare(changes) // sabotage: publish-group
	orphans := x.orphans(gone)
	x.makeRoom(len(changes) + len(orphans))

	// From the first word to the last a reader may be waiting: no I/O here.
	for i := range changes {
		c := &changes[i]
		if ref, ok := x.apply(c, x.hashes[i]); ok {
			dead = append(dead, x.segs.Load().At(ref))
		}
	}
	x.remove(orphans)
	x.visible.Store(max(visible, x.visible.Load()))

	if !x.keeping {
		x.bury()
	}
	return dead
}

// prepare does what may take time before the first reader has to wait: grow
// tables, bring in the pages apply will look at.
func (x *Index) prepare(changes []Change) {
	var due [shards]int
	x.hashes = x.hashes[:0]
	for i := range changes {
		h := x.hash(changes[i].Key)
		x.hashes = append(x.hashes, h)
		due[h.shard()]++
	}
	for _, h := range x.hashes {
		x.reserve(h.shard(), due[h.shard()])
	}
	for i := range changes {
		x.find(x.hashes[i], changes[i].Key)
	}
}

// place is the position of a key in its table.
type place struct {
	table *table
	pos   int
	word  word         // empty or marker if the key is not there
	stub  segment.Stub // of the record there
	size  int64        // of the record there
}

// find looks a key up under the index lock. If it is not there, the place is
// the first where it may be put: only the end of the chain proves that it is
// not there, so markers are passed and remembered.
func (x *Index) find(h hash, key []byte) place {
	t := x.tables[h.shard()].Load()
	free := -1
	for pos := t.home(h.bits()); ; pos = t.next(pos) {
		w := t.load(pos)
		switch {
		case w == empty && free >= 0:
			return place{table: t, pos: free, word: marker}
		case w == empty:
			return place{table: t, pos: pos, word: empty}
		case w == marker && free < 0:
			free = pos
		case w.named() && w.bits() == h.bits():
			// A damaged key is not found here. Its word stays, and
			// Lookup reports it.
			stub, ok := x.keys.slots.stub(w.ref())
			if ok && bytes.Equal(stub.Key, key) {
				return place{t, pos, w, stub, x.keys.slots.size(w.ref())}
			}
		}
	}
}

// apply puts one record in its place. It returns the blobref that is dead for
// that, if there is one.
func (x *Index) apply(c *Change, h hash) (dead segment.Ref, isDead bool) {
	p := x.find(h, c.Key)
	there := p.word.named()
	if there && p.word.ref() == c.Ref && p.stub.Seq == c.Seq {
		return 0, false // a follower may be told again
	}
	gone := c.Kind == segment.KindDelete
	if gone {
		x.usage[c.Ref.Slot()].Tombstones += c.Size
	}
	if there && !x.supersedes(c, &p.stub) {
		return c.Ref, c.Kind == segment.KindBlobRef
	}
	x.newest = max(x.newest, c.Seq)
	if gone && !there && !x.keeping {
		return 0, false
	}
	x.put(p, h, c.Ref)
	if gone && !x.forever {
		x.graves = append(x.graves, grave{h, c.Ref})
	}

	hadLive := there && p.stub.Kind != segment.KindDelete
	if hadLive {
		x.credit(p.word.ref(), p.size)
	}
	if !gone {
		x.charge(c.Ref, c.Size)
	}
	if hadLive || !gone {
		x.note(edit{item{prefixOf(c.Key), c.Ref}, hadLive, gone})
	}
	return p.word.ref(), there && p.stub.Kind == segment.KindBlobRef && p.stub.Seq != c.Seq
}

// supersedes reports whether a record takes the place of the one there. A
// sequence number above all that were ever published is a damaged one, and
// must not keep every later put of the key out.
func (x *Index) supersedes(c *Change, there *segment.Stub) bool {
	if c.Seq == there.Seq {
		return c.Kind == segment.KindDelete || there.Kind != segment.KindDelete
	}
	return c.Seq > there.Seq || there.Seq > x.newest // sabotage: newest-wins
}

// put stores a word and keeps count.
func (x *Index) put(p place, h hash, ref segment.Ref) {
	p.table.store(p.pos, makeWord(h, ref))
	switch p.word {
	case empty:
		x.fills[h.shard()].used++
	case marker:
		x.fills[h.shard()].markers--
	}
}

// grave is the word of a tombstone.
type grave struct {
	hash hash
	ref  segment.Ref
}

// bury turns the words of tombstones into markers, unless a newer put has
// taken the word over. Readers must be able to see the tombstones by now: one
// who may not would go on behind the marker and miss the older version too.
func (x *Index) bury() {
	for _, g := range x.graves {
		shard := g.hash.shard()
		t := x.tables[shard].Load()
		if pos := t.locate(g.hash, g.ref); pos >= 0 {
			x.erase(shard, pos)
		}
	}
	x.graves = x.graves[:0]
}

// erase turns a word into a marker. It never moves another word, since a
// reader may be under way to that.
func (x *Index) erase(shard, pos int) {
	x.tables[shard].Load().store(pos, marker)
	x.fills[shard].markers++
}

// DropTombstones forgets all tombstones and from now on every new one as soon
// as readers can see it. It is called once everything is loaded that could
// bring an older version of a deleted key. A follower never calls it.
func (x *Index) DropTombstones() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keeping = false
	x.bury()
}

func (x *Index) charge(ref segment.Ref, size int64) {
	x.live++
	x.usage[ref.Slot()].Records++
	x.usage[ref.Slot()].Bytes += size
}

func (x *Index) credit(ref segment.Ref, size int64) {
	x.live--
	x.usage[ref.Slot()].Records--
	x.usage[ref.Slot()].Bytes -= size
}
