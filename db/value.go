package db

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/segment"
)

// Value is a handle to one value of a key, as it was when the handle was made:
// the key may be overwritten or deleted meanwhile. What Bytes, Range and
// Extent return is valid until Close. A Value that is dropped without Close
// keeps its segment mapped, and counts in Stats, until the store is closed. Safe for
// concurrent use, except that Close must come last.
type Value struct {
	db       *DB
	seg      *segment.Segment
	record   segment.Record // verified but for the value
	verified atomic.Bool    // the value too
	handle   *handle
}

// Value returns a handle to the value of a key. It must be closed.
func (db *DB) Value(key []byte) (*Value, error) {
	hit, err := db.lookup(key)
	if err != nil {
		return nil, withKey("value", key, err)
	}
	v, err := db.newValue(hit.Segment, hit.Offset)
	if err != nil {
		return nil, withKey("value", key, err)
	}
	v.verified.Store(db.trusted(hit))
	return v, nil
}

func (db *DB) newValue(seg *segment.Segment, off int64) (*Value, error) {
	r, err := seg.Read(off)
	if err != nil {
		return nil, err
	}
	v := &Value{db: db, seg: seg, record: r}
	v.handle = db.handles.add("value", seg)
	return v, nil
}

// Bytes is the whole value, a slice of the mapping. It must not be written to.
func (v *Value) Bytes() ([]byte, error) { return v.Range(0, v.Size()) }

// Range is n bytes of the value from off on, a slice of the mapping. Of a
// value above 1 MiB only the chunks of 256 KiB that the range touches are
// verified, of a smaller one all of it, each on its first use.
func (v *Value) Range(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > v.Size()-n {
		return nil, fmt.Errorf("value %q: range %d+%d lies outside its %d bytes", v.record.Key, off, n, v.Size())
	}
	if v.handle.closed.Load() {
		return nil, fmt.Errorf("value %q: %w", v.record.Key, ErrClosed)
	}
	if err := v.verify(off, n); err != nil {
		return nil, withKey("value", v.record.Key, err)
	}
	return v.record.Value[off : off+n : off+n], nil
}

func (v *Value) verify(off, n int64) error {
	switch mode := v.db.opts.Verify; {
	case mode == VerifyNever || mode == VerifyFirst && v.verified.Load():
		return nil
	case mode == VerifyFirst && v.record.Flags&segment.FlagChunked != 0:
		return v.seg.VerifyRange(&v.record, off, n)
	}
	if err := v.record.VerifyValue(); err != nil {
		return v.seg.Damage(v.record.Offset, err.Error())
	}
	v.verified.Store(true)
	return nil
}

// Extent is where n bytes of the value from off on lie on disk, verified like
// Range. The file may be read until Close, for example by sendfile.
func (v *Value) Extent(off, n int64) (segment.Extent, error) {
	if _, err := v.Range(off, n); err != nil {
		return segment.Extent{}, err
	}
	return segment.Extent{File: v.seg.File(), Offset: v.record.ValueOffset() + off, Length: n}, nil
}

// Size of the value in bytes.
func (v *Value) Size() int64 { return int64(len(v.record.Value)) }

// Version tells this value from others of the same key.
func (v *Value) Version() Version { return versionOf(&v.record) }

// Metadata of the value.
func (v *Value) Metadata() (Metadata, error) { return metadataOf(v.seg, &v.record) }

// ModTime is the modification time in the metadata, or zero.
func (v *Value) ModTime() time.Time {
	m, _ := v.Metadata()
	return m.ModTime
}

// Close ends the use of the value. A second Close does nothing.
func (v *Value) Close() error {
	v.db.handles.close(v.handle)
	runtime.KeepAlive(v.seg)
	return nil
}

func metadataOf(seg *segment.Segment, r *segment.Record) (Metadata, error) {
	m, err := segment.DecodeMetadata(r.Meta)
	if err != nil {
		return m, seg.Damage(r.Offset, fmt.Sprintf("key %q: %v", r.Key, err))
	}
	return m, nil
}
