package db

import (
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
)

// Value is a handle to one value of a key, as it was when the handle was made:
// the key may be overwritten or deleted meanwhile. What Bytes, Range and
// Extents return is valid until Close.
//
// A Value is an io.ReadSeeker, an io.ReaderAt and an io.WriterTo, so it goes
// into http.ServeContent, zip.NewReader and io.Copy. All methods but Read, Seek
// and WriteTo, which share a position, are safe for concurrent use, except that
// Close must come last. A Value that is dropped without Close keeps its file
// mapped and is reported in Stats.
type Value struct {
	db       *DB
	seg      *segment.Segment
	record   segment.Record // verified but for the value
	payload  segment.Payload
	hit      index.Hit   // if it came through the index, to remember
	verified atomic.Bool // that the value was verified; never of a chunked one, whose chunks are
	handle   *handle
	pos      int64 // of Read, Seek and WriteTo
}

// Value returns a handle to the value of a key. It must be closed.
func (db *DB) Value(key []byte) (v *Value, err error) {
	err = db.retry(key, func(hit index.Hit) (err error) {
		v, err = db.newValue(hit.Segment, hit.Offset)
		if err == nil {
			v.hit = hit
			v.verified.Store(hit.Verified() && !v.payload.Chunked())
		}
		return err
	})
	return v, withKey("value", key, err)
}

func (db *DB) newValue(seg *segment.Segment, off int64) (*Value, error) {
	r, err := seg.Read(off)
	if err != nil {
		return nil, err
	}
	p, err := db.payload(seg, &r)
	if err != nil {
		return nil, err
	}
	v := &Value{db: db, seg: seg, record: r, payload: p}
	v.handle = db.handles.add(kindValue, r.Key, [2]any{seg, p})
	watch(v, v.handle)
	return v, nil
}

// Bytes is the whole value, a slice of the mapping. It must not be written to.
func (v *Value) Bytes() ([]byte, error) { return v.Range(0, v.Size()) }

// Range is n bytes of the value from off on, a slice of the mapping. Of a
// value above 1 MiB only the chunks that the range touches are verified, of a
// smaller one all of it, each on its first use.
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
	return v.payload.Bytes[off : off+n : off+n], nil
}

func (v *Value) verify(off, n int64) error {
	first := v.db.opts.Verify == VerifyFirst
	if v.db.opts.Verify == VerifyNever || first && v.verified.Load() {
		return nil
	}
	if err := v.payload.Verify(off, n, first); err != nil {
		return err
	}
	if !v.payload.Chunked() {
		v.verified.Store(true)
		if v.hit.Segment != nil {
			v.hit.MarkVerified(v.record.End)
		}
	}
	return nil
}

// Extent is where n bytes of the value from off on lie on disk, verified like
// Range. The file may be read until Close, for example by sendfile.
func (v *Value) Extent(off, n int64) (segment.Extent, error) {
	if _, err := v.Range(off, n); err != nil {
		return segment.Extent{}, err
	}
	return segment.Extent{File: v.payload.File, Offset: v.payload.Offset + off, Length: n}, nil
}

// Extents is where the value lies on disk, not verified. The files may be read
// until Close.
func (v *Value) Extents() []segment.Extent {
	return []segment.Extent{{File: v.payload.File, Offset: v.payload.Offset, Length: v.Size()}}
}

// Size of the value in bytes.
func (v *Value) Size() int64 { return int64(len(v.payload.Bytes)) }

// Version tells this value from others of the same key.
func (v *Value) Version() Version { return versionOf(&v.record) }

// Metadata of the value.
func (v *Value) Metadata() (Metadata, error) { return metadataOf(v.seg, &v.record) }

// ModTime is the modification time in the metadata, or zero.
func (v *Value) ModTime() time.Time {
	m, _ := v.Metadata()
	return m.ModTime
}

// ReadAt implements [io.ReaderAt].
func (v *Value) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("value %q: negative offset %d", v.record.Key, off)
	}
	if off >= v.Size() {
		return 0, io.EOF
	}
	b, err := v.Range(off, min(int64(len(p)), v.Size()-off))
	n := copy(p, b)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Read implements [io.Reader].
func (v *Value) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := v.ReadAt(p, v.pos)
	v.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Seek implements [io.Seeker].
func (v *Value) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += v.pos
	case io.SeekEnd:
		offset += v.Size()
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return v.pos, fmt.Errorf("value %q: can't seek to %d", v.record.Key, offset)
	}
	v.pos = offset
	return offset, nil
}

// Close ends the use of the value. A second Close does nothing.
func (v *Value) Close() error {
	v.db.handles.close(v.handle)
	runtime.KeepAlive(v)
	return nil
}

func metadataOf(seg *segment.Segment, r *segment.Record) (Metadata, error) {
	m, err := segment.DecodeMetadata(r.Meta)
	if err != nil {
		return m, seg.Damage(r.Offset, fmt.Sprintf("key %q: %v", r.Key, err))
	}
	return m, nil
}
