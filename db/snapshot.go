package db

import (
	"bytes"
	"fmt"
	"iter"
	"runtime"
	"time"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Snapshot is the store as it was at one moment, in key order. It sees no
// later write and blocks none. It must be closed: until then every segment it
// can read stays mapped. Safe for concurrent use, except that Close must come
// last.
//
// A snapshot that stays open while very much of what it can read is removed may
// expire: reads then fail with ErrSnapshotExpired, see Options.MaxPinned. What
// it has given out before stays valid until Close.
type Snapshot struct {
	db     *DB
	held   *snapshotHold
	handle *handle
}

// Snapshot takes a snapshot. The first one after Open sorts all keys, later
// ones only what was written since. If one of the records with a key in it is
// damaged, there is no order to show, and the error is a *CorruptError.
func (db *DB) Snapshot() (*Snapshot, error) {
	ordered, err := db.ordered()
	if err != nil {
		return nil, err
	}
	s := &Snapshot{db: db, held: newSnapshotHold(ordered)}
	s.handle = db.handles.add(kindSnapshot, nil, s.held) // sabotage: snapshot-holds
	watch(s, s.handle)
	return s, nil
}

// ordered takes the keys in order, with the segments that they lie in.
func (db *DB) ordered() (o *index.Ordered, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	o, err = db.index.Snapshot()
	if err == index.ErrClosed {
		return nil, ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return o, nil
}

// Close ends the use of the snapshot. A second Close does nothing.
func (s *Snapshot) Close() error {
	s.db.closeHandle(s.handle)
	runtime.KeepAlive(s)
	return nil
}

// Len is the number of keys.
func (s *Snapshot) Len() int { return s.held.ordered.Len() }

// Get is DB.Get as of the snapshot.
func (s *Snapshot) Get(dst, key []byte) ([]byte, error) {
	err := s.read(key, func(seg *segment.Segment, off int64) (err error) {
		dst, err = s.db.appendVerified(dst, seg, off)
		return err
	})
	return dst, withKey("get", key, err)
}

// View is DB.View as of the snapshot.
func (s *Snapshot) View(key []byte, fn func(value []byte) error) error {
	var p segment.Payload
	var value []byte
	err := s.read(key, func(seg *segment.Segment, off int64) (err error) {
		p, value, err = s.db.verifiedAt(seg, off)
		return err
	})
	if err != nil {
		return withKey("view", key, err)
	}
	err = fn(value)
	p.KeepAlive()
	return err
}

// Value is DB.Value as of the snapshot. The Value may outlive the snapshot.
func (s *Snapshot) Value(key []byte) (v *Value, err error) {
	err = s.read(key, func(seg *segment.Segment, off int64) (err error) {
		v, err = s.db.newValue(seg, off, index.Hit{})
		return err
	})
	return v, withKey("value", key, err)
}

// read finds a record and uses it, guarded.
func (s *Snapshot) read(key []byte, use func(*segment.Segment, int64) error) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if err := checkKey(key); err != nil {
		return err
	}
	if err := s.ended(); err != nil {
		return err
	}
	at, err := s.held.ordered.Get(key)
	switch err {
	case nil:
	case index.ErrAbsent:
		return ErrNotFound
	default:
		return s.why(err)
	}
	vfs.BetweenSteps()
	err = s.goneFrom(at.Segment, at.Offset, use(at.Segment, at.Offset))
	runtime.KeepAlive(at.Segment)
	return err
}

// ended is why the snapshot can't be read any more, or nil.
func (s *Snapshot) ended() error {
	switch {
	case s.handle.closed.Load():
		return closedHandle("snapshot")
	case s.held.ordered.Segments() == nil:
		return errRevoked
	}
	return nil
}

// why names the error of a read of the ordered index.
func (s *Snapshot) why(err error) error {
	if err == index.ErrReleased {
		return s.ended()
	}
	return err
}

// goneFrom names the error of a large value whose file, which the record at off
// names, is missing. A snapshot keeps it as long as its store is open, unless it
// had to let go, so then the file is lost. But a follower can't keep what a writer
// in another process removes, nor can a store that was closed keep what a later
// run removes.
func (s *Snapshot) goneFrom(seg *segment.Segment, off int64, err error) error {
	if !isNotExist(err) {
		return err
	}
	if err := s.ended(); err != nil {
		return err
	}
	if s.db.opts.ReadOnly || s.db.closed() { // sabotage: expire-after-close
		return fmt.Errorf("%w: %v", ErrSnapshotExpired, err)
	}
	return seg.Damage(off, err.Error())
}

// All iterates over all keys in byte order. Keys are slices of the mapping,
// valid until the snapshot is closed. Should reading fail, the last pair has a
// nil key and an Entry whose Err tells why.
func (s *Snapshot) All() iter.Seq2[[]byte, Entry] { return s.Range(nil, nil) }

// Range iterates, like All, over the keys from start on and before end. A nil
// bound is open.
func (s *Snapshot) Range(start, end []byte) iter.Seq2[[]byte, Entry] {
	return s.entries(func(o *index.Ordered) *index.Scan { return o.Ascend(start, end) })
}

// Prefix iterates, like All, over the keys that begin with prefix, from start
// on. A nil start means all of them.
func (s *Snapshot) Prefix(prefix, start []byte) iter.Seq2[[]byte, Entry] {
	if bytes.Compare(start, prefix) < 0 {
		start = prefix
	}
	return s.Range(start, prefixEnd(prefix))
}

// Backward is Range in descending order.
func (s *Snapshot) Backward(start, end []byte) iter.Seq2[[]byte, Entry] {
	return s.entries(func(o *index.Ordered) *index.Scan { return o.Descend(start, end) })
}

// prefixEnd is the first key behind all that begin with prefix, or nil if
// there is none.
func prefixEnd(prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if prefix[n-1] != 0xff {
			end := bytes.Clone(prefix[:n])
			end[n-1]++
			return end
		}
	}
	return nil
}

// entries iterates over what a scan finds. While the user looks at an entry, it
// holds no segment but that of the entry and leaves no guard in place.
func (s *Snapshot) entries(begin func(*index.Ordered) *index.Scan) iter.Seq2[[]byte, Entry] {
	return func(yield func([]byte, Entry) bool) {
		scan := begin(s.held.ordered)
		for at := range scan.All() {
			e := s.entry(at)
			if !yield(e.record.Key, e) || e.err != nil {
				return
			}
		}
		if err := scan.Err(); err != nil {
			yield(nil, Entry{err: s.why(err)})
		}
		runtime.KeepAlive(s)
	}
}

func (s *Snapshot) entry(at index.Location) Entry {
	e, err := s.readEntry(at)
	if err != nil {
		return Entry{err: err}
	}
	return e
}

func (s *Snapshot) readEntry(at index.Location) (e Entry, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if !s.held.lend(at.Segment) {
		return e, s.ended()
	}
	vfs.BetweenSteps()
	r, err := at.Segment.Peek(at.Offset)
	if err != nil {
		return e, err
	}
	touch(r.Key)
	e = Entry{snapshot: s, seg: at.Segment, record: r, size: r.ValueSize()}
	runtime.KeepAlive(at.Segment)
	return e, nil
}

// touch makes sure that a key can be read: the user will, without a guard.
//
//go:noinline
func touch(key []byte) (sum byte) {
	const page = 4096
	if len(key) == 0 {
		return 0 // damaged
	}
	for i := 0; i < len(key); i += page {
		sum ^= key[i]
	}
	return sum ^ key[len(key)-1]
}

// Entry is one key of a snapshot with its value. It is valid until the
// snapshot is closed.
type Entry struct {
	snapshot *Snapshot
	seg      *segment.Segment
	record   segment.Record
	size     int64
	err      error
}

// Err tells why an iteration ended early.
func (e *Entry) Err() error { return e.err }

// Size of the value in bytes.
func (e *Entry) Size() int64 { return e.size }

// Version of the value.
func (e *Entry) Version() Version { return versionOf(&e.record) }

// Metadata of the value.
func (e *Entry) Metadata() (Metadata, error) { return metadataOf(e.seg, &e.record) }

// ModTime is the modification time in the metadata, or zero.
func (e *Entry) ModTime() time.Time {
	m, _ := e.Metadata()
	return m.ModTime
}

// Bytes is the value, a slice of the mapping, verified. A value in a file of its
// own keeps that file open until the snapshot is closed; for many of those use
// Snapshot.View or Value. It may also be a copy, see Value.Range.
func (e *Entry) Bytes() (value []byte, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if err := e.snapshot.ended(); err != nil {
		return nil, err
	}
	p, value, err := e.snapshot.db.verifiedAt(e.seg, e.record.Offset)
	if err != nil {
		return nil, e.snapshot.goneFrom(e.seg, e.record.Offset, err)
	}
	if e.record.Kind == segment.KindBlobRef {
		e.snapshot.held.keep(p)
	}
	return value, nil
}

// verifiedAt returns a value for which there is no word in the index to keep
// the verified bit in: it is checked each time. The slice is good as long as the
// Payload is held.
func (db *DB) verifiedAt(seg *segment.Segment, off int64) (p segment.Payload, value []byte, err error) {
	r, err := seg.Read(off)
	if err != nil {
		return p, nil, err
	}
	if p, err = db.payload(seg, &r); err != nil {
		return p, nil, err
	}
	if db.opts.Verify != VerifyNever {
		if err := p.Verify(0, p.Size, db.opts.Verify == VerifyFirst); err != nil {
			return p, nil, err
		}
	}
	vfs.BetweenSteps()
	value, err = p.Slice(0, p.Size)
	return p, value, err
}
