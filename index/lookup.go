package index

import (
	"bytes"
	"errors"
	"runtime"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Hit is where the newest version of a key lies.
type Hit struct {
	Location
	Seq uint64 // as proven as the record is

	table *table
	pos   int
	word  word
}

// Verified reports whether header and value of the record have been verified
// since it was opened.
func (h Hit) Verified() bool { return h.word.verified() }

// MarkVerified remembers that header and value have been verified. end is the
// End of the record: one that is not durable yet is not marked, since it may
// have to be read again from a disk that lost it. A mark that is set while the
// word changes is lost, which costs a second verification.
func (h Hit) MarkVerified(end int64) {
	if end <= h.Segment.Synced() {
		h.table.swap(h.pos, h.word, h.word|verifiedBit)
	}
}

// Lookup finds the newest version of a key. It returns ErrAbsent, ErrClosed, or
// a *segment.CorruptError if a damaged record may be the one. It takes no lock.
func (x *Index) Lookup(key []byte) (Hit, error) { return x.LookupResident(key, nil) }

// LookupResident is Lookup that does not wait for a disk. It returns ErrNotResident
// instead of looking at a record that was not verified yet, or whose header and key
// are not in memory, as far as resident says, which may not read them.
//
// The order of its loads is the reader's protocol of the package comment.
func (x *Index) LookupResident(key []byte, resident func([]byte) bool) (Hit, error) {
	h := x.hash(key)
	for {
		segs := x.segs.Load()
		if segs == nil {
			return Hit{}, ErrClosed
		}
		vfs.BetweenSteps()
		t := x.tables[h.shard()].Load()
		if t == nil {
			return Hit{}, ErrAbsent
		}
		hit, err := x.search(t, h.bits(), segs, key, resident)
		runtime.KeepAlive(t)
		runtime.KeepAlive(segs)
		if err != errStale {
			return hit, err
		}
		// The key is in a segment that was attached after the set was
		// loaded, and before the key named it. The next set has it.
	}
}

// errStale says that a word names a segment which the set lacks: the set is
// older than the word.
var errStale = errors.New("set of segments older than the table")

// Glance finds where Lookup looks first, without a look at the record, which may
// have to come from disk: the newest version of the key or, seldom, a record of
// another one that has the same bits of its hash. The Hit has no Seq. It is empty if
// Lookup looks at no record.
func (x *Index) Glance(key []byte) (hit Hit) {
	h := x.hash(key)
	segs := x.segs.Load()
	t := x.tables[h.shard()].Load()
	if segs == nil || t == nil {
		return hit
	}
	pos, w := t.find(t.home(h.bits()), h.bits())
	if s := segs.of(w); s != nil {
		hit = Hit{Location: Location{s, w.ref().Offset()}, table: t, pos: pos, word: w}
	}
	runtime.KeepAlive(t)
	runtime.KeepAlive(segs)
	return hit
}

// search follows the chain of a key. It returns errStale if the set is too old.
func (x *Index) search(t *table, bits uint64, segs *Segments, key []byte, resident func([]byte) bool) (Hit, error) {
	for pos := t.home(bits); ; pos = t.next(pos) {
		var w word
		if pos, w = t.find(pos, bits); w == empty {
			return Hit{}, ErrAbsent
		}
		s, off := segs.of(w), w.ref().Offset()
		if s == nil {
			return Hit{}, errStale
		}
		if resident != nil && (!w.verified() || !resident(s.Head(off, len(key)))) {
			return Hit{}, ErrNotResident
		}
		stub, ok := s.Stub(off)
		if ok && bytes.Equal(stub.Key, key) {
			return x.judge(Hit{Location{s, off}, stub.Seq, t, pos, w}, stub.Kind)
		}
		if resident != nil {
			return Hit{}, ErrNotResident // more has to be read
		}
		// Either another key has the same hash bits or a bit of this one was
		// flipped, and only the checksum knows.
		if _, err := s.Read(off); err != nil {
			return Hit{}, err
		}
	}
}

// judge decides what a record with the right key means for a reader. Whatever
// would hide the record or make the reader wait is proven first: a flipped bit
// in kind or sequence number must not do either.
func (x *Index) judge(hit Hit, kind segment.Kind) (Hit, error) {
	late := hit.Seq > x.visible.Load()
	if !late && (kind == segment.KindPut || kind == segment.KindBlobRef) {
		return hit, nil
	}
	r, err := hit.Segment.Read(hit.Offset)
	if err != nil {
		return Hit{}, err
	}
	// The rest of the group is being published, which involves no I/O. The
	// older version is gone already, and this one may not be seen before the
	// rest can be.
	for r.Seq > x.visible.Load() {
		runtime.Gosched()
	}
	if r.Kind == segment.KindDelete {
		hit.MarkVerified(r.End)
		return Hit{}, ErrAbsent
	}
	return hit, nil
}
