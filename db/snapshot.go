package db

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"time"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
)

// Snapshot is the store as it was at one moment, in key order. It sees no
// later write and blocks none. It must be closed: until then every segment it
// can read stays mapped. Safe for concurrent use, except that Close must come
// last.
type Snapshot struct {
	db      *DB
	state   *state
	ordered *index.Ordered
	held    *snapshotHold
	handle  *handle
}

// snapshotHold is what the slices that a snapshot gave out lie in.
type snapshotHold struct {
	state *state

	mu    sync.Mutex
	blobs map[string]segment.Payload // by file name
}

// keep holds a blob, once, and returns the Payload that is held.
func (h *snapshotHold) keep(p segment.Payload) segment.Payload {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held, ok := h.blobs[p.File.Name()]; ok {
		return held
	}
	h.blobs[p.File.Name()] = p
	return p
}

// Snapshot takes a snapshot. The first one after Open sorts all keys, later
// ones only what was written since. If one of the records with a key in it is
// damaged, there is no order to show, and the error is a *CorruptError.
func (db *DB) Snapshot() (*Snapshot, error) {
	s := &Snapshot{db: db}
	ordered, err := db.index.Snapshot(func() bool {
		s.state = db.state.Load()
		return s.state != nil
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if ordered == nil {
		return nil, ErrClosed
	}
	s.ordered = ordered
	s.held = &snapshotHold{state: s.state, blobs: make(map[string]segment.Payload)}
	s.handle = db.handles.add(kindSnapshot, nil, s.held)
	watch(s, s.handle)
	return s, nil
}

// Close ends the use of the snapshot. A second Close does nothing.
func (s *Snapshot) Close() error {
	s.db.handles.close(s.handle)
	runtime.KeepAlive(s.state)
	return nil
}

// Len is the number of keys.
func (s *Snapshot) Len() int { return s.ordered.Len() }

// Get is DB.Get as of the snapshot.
func (s *Snapshot) Get(dst, key []byte) ([]byte, error) {
	seg, off, err := s.lookup(key)
	if err == nil {
		dst, err = s.db.appendVerified(dst, seg, off)
		runtime.KeepAlive(seg)
	}
	return dst, withKey("get", key, expired(err))
}

// View is DB.View as of the snapshot.
func (s *Snapshot) View(key []byte, fn func(value []byte) error) error {
	seg, off, err := s.lookup(key)
	if err != nil {
		return withKey("view", key, err)
	}
	p, err := s.db.verifiedAt(seg, off)
	if err != nil {
		return withKey("view", key, expired(err))
	}
	err = fn(p.Bytes)
	p.KeepAlive()
	return err
}

// Value is DB.Value as of the snapshot. The Value may outlive the snapshot.
func (s *Snapshot) Value(key []byte) (*Value, error) {
	seg, off, err := s.lookup(key)
	if err != nil {
		return nil, withKey("value", key, err)
	}
	v, err := s.db.newValue(seg, off)
	return v, withKey("value", key, expired(err))
}

func (s *Snapshot) lookup(key []byte) (*segment.Segment, int64, error) {
	if s.handle.closed.Load() {
		return nil, 0, ErrClosed
	}
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	ref, ok := s.ordered.Get(key)
	if !ok {
		return nil, 0, ErrNotFound
	}
	return s.state.segs[ref.Slot()], ref.Offset(), nil
}

// expired names the error of a large value that a writer in another process
// has removed: the snapshot of a follower can't keep it.
func expired(err error) error {
	if isNotExist(err) && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: %v", ErrSnapshotExpired, err)
	}
	return err
}

// All iterates over all keys in byte order. Keys are slices of the mapping,
// valid until the snapshot is closed. Should reading fail, the last pair has a
// nil key and an Entry whose Err tells why.
func (s *Snapshot) All() iter.Seq2[[]byte, Entry] { return s.Range(nil, nil) }

// Range iterates, like All, over the keys from start on and before end. A nil
// bound is open.
func (s *Snapshot) Range(start, end []byte) iter.Seq2[[]byte, Entry] {
	return s.entries(s.ordered.Ascend(start, end))
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
	return s.entries(s.ordered.Descend(start, end))
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

func (s *Snapshot) entries(refs iter.Seq[segment.Ref]) iter.Seq2[[]byte, Entry] {
	return func(yield func([]byte, Entry) bool) {
		for ref := range refs {
			e := s.entry(ref)
			if !yield(e.record.Key, e) || e.err != nil {
				return
			}
		}
		runtime.KeepAlive(s)
	}
}

func (s *Snapshot) entry(ref segment.Ref) Entry {
	if s.handle.closed.Load() {
		return Entry{err: fmt.Errorf("snapshot: %w", ErrClosed)}
	}
	seg := s.state.segs[ref.Slot()]
	r, err := seg.Peek(ref.Offset())
	if err != nil {
		return Entry{err: err}
	}
	return Entry{snapshot: s, seg: seg, record: r}
}

// Entry is one key of a snapshot with its value. It is valid until the
// snapshot is closed.
type Entry struct {
	snapshot *Snapshot
	seg      *segment.Segment
	record   segment.Record
	err      error
}

// Err tells why an iteration ended early.
func (e *Entry) Err() error { return e.err }

// Size of the value in bytes.
func (e *Entry) Size() int64 { return e.record.ValueSize() }

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
// Snapshot.View or Value.
func (e *Entry) Bytes() ([]byte, error) {
	p, err := e.snapshot.db.verifiedAt(e.seg, e.record.Offset)
	if err != nil {
		return nil, expired(err)
	}
	if e.record.Kind == segment.KindBlobRef {
		p = e.snapshot.held.keep(p)
	}
	return p.Bytes, nil
}

// verifiedAt returns a value for which there is no word in the index to keep
// the verified bit in: it is checked each time.
func (db *DB) verifiedAt(seg *segment.Segment, off int64) (segment.Payload, error) {
	r, err := seg.Read(off)
	if err != nil {
		return segment.Payload{}, err
	}
	p, err := db.payload(seg, &r)
	if err != nil || db.opts.Verify == VerifyNever {
		return p, err
	}
	return p, p.Verify(0, int64(len(p.Bytes)), db.opts.Verify == VerifyFirst)
}
