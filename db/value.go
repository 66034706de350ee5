package db

import (
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Value is a handle to one value of a key, as it was when the handle was made:
// the key may be overwritten or deleted meanwhile. What Bytes and Range return is
// valid until Close.
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
	v.register()
	return v, nil
}

// register makes the store know of a handle, with the key as it is in the record.
func (v *Value) register() {
	v.handle = v.db.handles.add(kindValue, v.record.Key, valueHold{v.seg, v.payload})
	watch(v, v.handle)
}

// valueHold is what the slices of a Value lie in.
type valueHold struct {
	seg     *segment.Segment
	payload segment.Payload
}

func (h valueHold) holds(seg *segment.Segment) bool { return h.seg == seg }

// Bytes is the whole value, as of Range. It must not be written to.
func (v *Value) Bytes() ([]byte, error) { return v.Range(0, v.Size()) }

// Range is n bytes of the value from off on, a slice of the mapping. Of a
// value above 1 MiB only the chunks that the range touches are verified, of a
// smaller one all of it, each on its first use.
//
// A value in a file of its own is not mapped if the process already has very
// many mappings. Range is then a copy, made with system calls. ReadAt, Read and
// WriteTo do without.
func (v *Value) Range(off, n int64) ([]byte, error) {
	if err := v.check(off, n); err != nil {
		return nil, err
	}
	b, err := v.payload.Slice(off, n)
	return b, v.failed(err)
}

// check makes sure that a range can be used, and verifies it.
func (v *Value) check(off, n int64) error {
	if off < 0 || n < 0 || off > v.Size()-n {
		return fmt.Errorf("value %q: range %d+%d lies outside its %d bytes", v.handle.key, off, n, v.Size())
	}
	if v.handle.closed.Load() {
		return v.failed(ErrClosed)
	}
	return v.failed(v.verify(off, n))
}

func (v *Value) failed(err error) error { return withKey("value", []byte(v.handle.key), err) }

func (v *Value) verify(off, n int64) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
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
// Range. The file may be read until Close, for example by sendfile, unless the
// store has moved the value to memory to get rid of a file that was removed long
// ago: then its OS method returns nil and its ReadAt fails with fs.ErrClosed.
func (v *Value) Extent(off, n int64) (segment.Extent, error) {
	if err := v.check(off, n); err != nil {
		return segment.Extent{}, err
	}
	return segment.Extent{File: v.payload.File, Offset: v.payload.Offset + off, Length: n}, nil
}

// Extents is where the value lies on disk, not verified. The files may be used
// like that of Extent.
func (v *Value) Extents() []segment.Extent {
	return []segment.Extent{{File: v.payload.File, Offset: v.payload.Offset, Length: v.Size()}}
}

// Size of the value in bytes.
func (v *Value) Size() int64 { return v.payload.Size }

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
		return 0, fmt.Errorf("value %q: negative offset %d", v.handle.key, off)
	}
	if off >= v.Size() {
		return 0, io.EOF
	}
	n := min(int64(len(p)), v.Size()-off)
	if err := v.check(off, n); err != nil {
		return 0, err
	}
	if err := v.copyTo(p[:n], off); err != nil {
		return 0, v.failed(err)
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (v *Value) copyTo(p []byte, off int64) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	return v.payload.ReadAt(p, off)
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
		return v.pos, fmt.Errorf("value %q: can't seek to %d", v.handle.key, offset)
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

func metadataOf(seg *segment.Segment, r *segment.Record) (m Metadata, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	m, err = segment.DecodeMetadata(r.Meta)
	if err != nil {
		return m, seg.Damage(r.Offset, fmt.Sprintf("key %q: %v", r.Key, err))
	}
	return m, nil
}
