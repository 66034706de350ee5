package db

import (
	"fmt"
	"runtime"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Lent is a value for the time of a call, see [DB.Lend]. It is for one
// goroutine.
type Lent struct {
	db       *DB
	key      []byte // the caller's
	hit      index.Hit
	record   segment.Record // verified but for the value
	payload  segment.Payload
	verified bool // that the value was verified; never of a chunked one, whose chunks are
}

// Lend calls fn with the value of a key, like View, but with all that a [Value]
// tells of it: metadata, version, parts of it and where it lies on disk. It
// costs no registration and, for values in segments, no allocation.
//
// It holds the segment, or the file, for the call and no longer: v and all that
// its methods return, strings included, is valid until fn returns. Nothing of
// it may be written to, and the key may not either until then. The store does
// not list it among its open handles; what takes its time may call Keep.
//
// The value is not verified before fn is called. The error of fn is returned.
func (db *DB) Lend(key []byte, fn func(v Lent) error) error {
	return db.LendResident(key, nil, fn)
}

// LendResident is Lend that does not wait for a disk. It returns ErrNotResident, and
// fn is not called, unless the record has been verified and lies in memory, metadata
// included, as far as resident says; nor for a value of more than 1 MiB or in a file of
// its own, of which more has to be read. The value itself is not asked about.
// [DB.Prefetch] helps.
//
// Memory that resident is asked about may not be read in it. [vfs.Resident] asks the
// kernel.
func (db *DB) LendResident(key []byte, resident func(mem []byte) bool, fn func(v Lent) error) error {
	if resident != nil && db.opts.Verify == VerifyAlways {
		return ErrNotResident
	}
	var v Lent
	err := db.retry(key, resident, func(hit index.Hit) (err error) {
		v, err = db.lent(key, hit, resident)
		return err
	})
	if err == ErrNotResident {
		return err
	}
	if err != nil {
		return withKey("lend", key, err)
	}
	err = fn(v)
	v.payload.KeepAlive()
	runtime.KeepAlive(v.hit.Segment)
	return err
}

// lent makes a Lent of a hit, which is trusted if there is a resident.
func (db *DB) lent(key []byte, hit index.Hit, resident func([]byte) bool) (v Lent, err error) {
	v = Lent{db: db, key: key, hit: hit}
	trusted := db.trusted(hit)
	switch {
	case resident != nil:
		var ok bool
		if v.record, ok = hit.Segment.PeekResident(hit.Offset, resident); !ok {
			err = ErrNotResident
		}
	case trusted:
		v.record, err = hit.Segment.Peek(hit.Offset)
	default:
		v.record, err = hit.Segment.Read(hit.Offset)
		if err == nil && db.opts.Verify == VerifyNever {
			hit.MarkVerified(v.record.End) // as far as anybody asks
		}
	}
	if err != nil {
		return v, err
	}
	v.payload, err = db.payload(hit.Segment, &v.record)
	v.verified = trusted && !v.payload.Chunked()
	return v, err
}

// Range is n bytes of the value from off on, as Value.Range returns it: verified
// on the first use.
func (v *Lent) Range(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > v.Size()-n {
		return nil, withKey("value", v.key, outside(off, n, v.Size()))
	}
	if err := v.verify(off, n); err != nil {
		return nil, withKey("value", v.key, err)
	}
	b, err := v.payload.Slice(off, n)
	return b, withKey("value", v.key, err)
}

// Verified reports whether Range need not read what it returns. Of values above
// 1 MiB it never knows.
func (v *Lent) Verified() bool {
	return v.db.opts.Verify == VerifyNever || v.db.opts.Verify == VerifyFirst && v.verified
}

func (v *Lent) verify(off, n int64) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if v.Verified() {
		return nil
	}
	first := v.db.opts.Verify == VerifyFirst
	if err := v.payload.Verify(off, n, first); err != nil {
		return err
	}
	if !v.payload.Chunked() {
		v.verified = true
		v.hit.MarkVerified(v.record.End)
	}
	return nil
}

// Extent is where the value lies on disk, not verified. The file may be used
// like that of Value.Extent, until fn returns.
func (v *Lent) Extent() segment.Extent {
	return segment.Extent{File: v.payload.File, Offset: v.payload.Offset, Length: v.Size()}
}

// Size of the value in bytes.
func (v *Lent) Size() int64 { return v.payload.Size }

// Version tells this value from others of the same key.
func (v *Lent) Version() Version { return versionOf(&v.record) }

// Metadata of the value. Its strings are lent too.
func (v *Lent) Metadata() (m Metadata, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	m, err = segment.ViewMetadata(v.record.Meta)
	if err != nil {
		return m, v.hit.Segment.Damage(v.record.Offset, fmt.Sprintf("key %q: %v", v.key, err))
	}
	return m, nil
}

// Keep returns a handle to the value, which the store lists and which may
// outlive the call. It must be closed.
func (v *Lent) Keep() *Value {
	return v.db.handleOf(&valueSource{seg: v.hit.Segment, record: v.record, payload: v.payload, hit: v.hit}, v.verified)
}
