package db

import (
	"fmt"
	"io/fs"
	"runtime"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Get appends the value of a key to dst. The value has been verified and is
// the caller's for good.
func (db *DB) Get(dst, key []byte) ([]byte, error) {
	err := db.retry(key, nil, func(hit index.Hit) (err error) {
		dst, err = db.appendVerified(dst, hit.Segment, hit.Offset)
		return err
	})
	return dst, withKey("get", key, err)
}

// View calls fn with the value of a key: a slice of the mapped file, with no
// copy and, for values in segments, no allocation. It is valid until fn returns
// and must not be written to. The error of fn is returned.
func (db *DB) View(key []byte, fn func(value []byte) error) error {
	hit, r, err := db.find(key)
	if err != nil {
		return withKey("view", key, err)
	}
	if r.Kind == segment.KindBlobRef {
		return db.viewBlob(key, fn)
	}
	err = fn(r.Value)
	runtime.KeepAlive(hit.Segment) // sabotage: keep-segment
	return err
}

// find finds and verifies a record. It ends before code of the user begins,
// which runs with the user's own setting for faults.
func (db *DB) find(key []byte) (hit index.Hit, r segment.Record, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if hit, err = db.lookup(key); err == nil {
		vfs.BetweenSteps()
		r, err = db.verified(hit)
	}
	return hit, r, err
}

func (db *DB) viewBlob(key []byte, fn func(value []byte) error) error {
	v, err := db.Value(key)
	if err != nil {
		return err
	}
	defer v.Close()
	value, err := v.Bytes()
	if err != nil {
		return err
	}
	return fn(value)
}

// retry looks a key up and calls use with what it finds. A blob that is gone
// by then was superseded: the key is looked up once more. resident is that of
// LendResident, or nil.
func (db *DB) retry(key []byte, resident func([]byte) bool, use func(index.Hit) error) error {
	for again := true; ; again = false {
		hit, err := db.attempt(key, resident, use)
		if hit.Segment == nil || !isNotExist(err) {
			return err
		}
		if !again {
			return hit.Segment.Damage(hit.Offset, err.Error())
		}
		if err := db.Refresh(); err != nil {
			return err
		}
	}
}

// attempt is one of retry. Without a hit the error is that of the lookup.
func (db *DB) attempt(key []byte, resident func([]byte) bool, use func(index.Hit) error) (hit index.Hit, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if hit, err = db.lookupResident(key, resident); err != nil {
		return index.Hit{}, err
	}
	vfs.BetweenSteps()
	err = use(hit)
	runtime.KeepAlive(hit.Segment)
	return hit, err
}

// lookup finds the record of a key.
func (db *DB) lookup(key []byte) (index.Hit, error) { return db.lookupResident(key, nil) }

func (db *DB) lookupResident(key []byte, resident func([]byte) bool) (index.Hit, error) {
	if err := checkKey(key); err != nil {
		return index.Hit{}, err
	}
	hit, err := db.index.LookupResident(key, resident)
	switch err {
	case index.ErrAbsent:
		err = ErrNotFound
	case index.ErrClosed:
		err = ErrClosed
	}
	return hit, err
}

// verified returns the record of a hit, checked as the options say.
func (db *DB) verified(hit index.Hit) (segment.Record, error) {
	if db.trusted(hit) {
		return hit.Segment.Peek(hit.Offset)
	}
	r, err := hit.Segment.Read(hit.Offset) // sabotage: read-proven
	if err != nil {
		return r, err
	}
	if db.opts.Verify == VerifyNever {
		hit.MarkVerified(r.End) // as far as anybody asks
		return r, nil
	}
	if r.Flags&segment.FlagChunked != 0 {
		p := hit.Segment.Payload(&r)
		return r, p.Verify(0, p.Size, db.opts.Verify == VerifyFirst)
	}
	if err := hit.Segment.Populate(r.ValueOffset(), int64(len(r.Value))); err != nil {
		return r, err
	}
	if err := r.VerifyValue(); err != nil {
		return r, hit.Segment.Damage(r.Offset, err.Error())
	}
	hit.MarkVerified(r.End)
	return r, nil
}

// trusted reports whether the record of a hit needs no check on this read.
func (db *DB) trusted(hit index.Hit) bool {
	return db.opts.Verify != VerifyAlways && hit.Verified()
}

// payload finds the value of a record from Read. It fails with fs.ErrNotExist
// if that is a blob which is gone.
func (db *DB) payload(seg *segment.Segment, r *segment.Record) (segment.Payload, error) {
	if r.Kind != segment.KindBlobRef {
		return seg.Payload(r), nil
	}
	list, err := extentsOf(seg, r)
	if err != nil {
		return segment.Payload{}, err
	}
	blob := seg.Blob(list[0].Blob)
	if blob == nil { // the segment left the store, and has let go of it
		return segment.Payload{}, fmt.Errorf("%s: %w", list[0].Blob.BlobName(), fs.ErrNotExist)
	}
	vfs.BetweenSteps()
	return blob.Payload()
}

// appendVerified appends a copy of a value and verifies the copy.
func (db *DB) appendVerified(dst []byte, seg *segment.Segment, off int64) ([]byte, error) {
	r, err := seg.Read(off)
	if err != nil {
		return dst, err
	}
	p, err := db.payload(seg, &r)
	if err != nil {
		return dst, err
	}
	defer p.KeepAlive()
	vfs.BetweenSteps()
	return p.Append(dst)
}
