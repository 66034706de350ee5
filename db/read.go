package db

import (
	"runtime"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
)

// Get appends the value of a key to dst. The value has been verified and is
// the caller's for good.
func (db *DB) Get(dst, key []byte) ([]byte, error) {
	hit, err := db.lookup(key)
	if err != nil {
		return dst, withKey("get", key, err)
	}
	dst, err = appendVerified(dst, hit.Segment, hit.Offset)
	runtime.KeepAlive(hit.Segment)
	return dst, withKey("get", key, err)
}

// View calls fn with the value of a key: a slice of the mapped segment, with
// no copy and no allocation. It is valid until fn returns and must not be
// written to. The error of fn is returned.
func (db *DB) View(key []byte, fn func(value []byte) error) error {
	hit, err := db.lookup(key)
	if err != nil {
		return withKey("view", key, err)
	}
	value, err := db.verified(hit)
	if err != nil {
		return withKey("view", key, err)
	}
	err = fn(value)
	runtime.KeepAlive(hit.Segment)
	return err
}

// lookup finds the record of a key. The state is loaded before the index is
// asked and lives until the hit, which holds its Segment, has been made.
func (db *DB) lookup(key []byte) (index.Hit, error) {
	if err := checkKey(key); err != nil {
		return index.Hit{}, err
	}
	for {
		st := db.state.Load()
		if st == nil {
			return index.Hit{}, ErrClosed
		}
		hit, err := db.index.Lookup(st.segs, key)
		runtime.KeepAlive(st)
		switch {
		case err == nil:
			return hit, nil
		case err == index.ErrAbsent:
			return hit, ErrNotFound
		case err != index.ErrStale:
			return hit, err
		}
		// The key moved to a segment younger than the state. That segment was
		// published before the key moved, so the next state has it.
	}
}

// verified returns the value of a hit, checked as the options say.
func (db *DB) verified(hit index.Hit) ([]byte, error) {
	if db.trusted(hit) {
		r, err := hit.Segment.Peek(hit.Offset)
		return r.Value, err
	}
	r, err := hit.Segment.Read(hit.Offset)
	if err != nil {
		return nil, err
	}
	if r.Flags&segment.FlagChunked != 0 && db.opts.Verify == VerifyFirst {
		return r.Value, hit.Segment.VerifyRange(&r, 0, int64(len(r.Value)))
	}
	if err := r.VerifyValue(); err != nil {
		return nil, hit.Segment.Damage(r.Offset, err.Error())
	}
	hit.MarkVerified(r.End)
	return r.Value, nil
}

// trusted reports whether the record of a hit needs no check on this read.
func (db *DB) trusted(hit index.Hit) bool {
	return db.opts.Verify == VerifyNever || db.opts.Verify == VerifyFirst && hit.Verified()
}

// appendVerified appends a copy of a value and verifies the copy.
func appendVerified(dst []byte, seg *segment.Segment, off int64) ([]byte, error) {
	r, err := seg.Read(off)
	if err != nil {
		return dst, err
	}
	n := len(dst)
	dst = append(dst, r.Value...)
	r.Value = dst[n:]
	if err := r.VerifyValue(); err != nil {
		return dst[:n], seg.Damage(off, err.Error())
	}
	return dst, nil
}
