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
	held     *valueHold
	size     int64
	version  Version
	verified atomic.Bool // never of a chunked value, whose chunks are
	handle   *handle
	pos      int64 // of Read, Seek and WriteTo
}

// Value returns a handle to the value of a key. It must be closed.
func (db *DB) Value(key []byte) (v *Value, err error) {
	err = db.retry(key, nil, func(hit index.Hit) (err error) {
		v, err = db.newValue(hit.Segment, hit.Offset, hit)
		return err
	})
	return v, withKey("value", key, err)
}

// newValue makes a Value of the record at off. hit is how it was found, if it
// came through the index.
func (db *DB) newValue(seg *segment.Segment, off int64, hit index.Hit) (*Value, error) {
	r, err := seg.Read(off)
	if err != nil {
		return nil, err
	}
	p, err := db.payload(seg, &r)
	if err != nil {
		return nil, err
	}
	return db.handleOf(&valueSource{seg: seg, record: r, payload: p, hit: hit}, hit.Verified() && !p.Chunked()), nil // sabotage: verified-blob
}

// handleOf returns a registered handle. verified says that the whole value was.
func (db *DB) handleOf(src *valueSource, verified bool) *Value {
	v := &Value{db: db, held: new(valueHold), size: src.payload.Size, version: versionOf(&src.record)}
	v.held.source.Store(src)
	v.verified.Store(verified)
	v.handle = db.handles.add(kindValue, src.record.Key, v.held) // sabotage: value-holds
	watch(v, v.handle)
	return v
}

// valueSource is what a Value reads from. Whoever uses it keeps it alive
// meanwhile, for Close may drop it.
type valueSource struct {
	seg     *segment.Segment
	record  segment.Record // verified but for the value
	payload segment.Payload
	hit     index.Hit // to remember that the value was verified; without a Segment if there was none
}

// valueHold is what the slices of a Value lie in.
type valueHold struct {
	source atomic.Pointer[valueSource] // nil once closed
}

func (h *valueHold) holds(seg *segment.Segment) bool {
	src := h.source.Load()
	return src != nil && src.seg == seg
}

func (h *valueHold) letGo() { h.source.Store(nil) }

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
	src, err := v.check(off, n)
	if err != nil {
		return nil, err
	}
	b, err := src.payload.Slice(off, n)
	runtime.KeepAlive(src)
	return b, v.failed(err)
}

// check makes sure that a range can be used, and verifies it.
func (v *Value) check(off, n int64) (*valueSource, error) {
	if off < 0 || n < 0 || off > v.Size()-n {
		return nil, v.failed(outside(off, n, v.Size()))
	}
	src := v.held.source.Load()
	if src == nil {
		return nil, v.failed(closedHandle("the handle"))
	}
	return src, v.failed(v.verify(src, off, n))
}

// outside is about a range that is not within a value of that size.
func outside(off, n, size int64) error {
	return invalid{fmt.Errorf("range %d+%d lies outside its %d bytes", off, n, size)}
}

func (v *Value) failed(err error) error { return withKey("value", []byte(v.handle.key), err) }

func (v *Value) verify(src *valueSource, off, n int64) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	first := v.db.opts.Verify == VerifyFirst
	if v.db.opts.Verify == VerifyNever || first && v.verified.Load() {
		return nil
	}
	err = src.payload.Verify(off, n, first)
	runtime.KeepAlive(src)
	if err != nil {
		return err
	}
	if !src.payload.Chunked() {
		v.verified.Store(true)
		if src.hit.Segment != nil {
			src.hit.MarkVerified(src.record.End)
		}
	}
	return nil
}

// Extent is where n bytes of the value from off on lie on disk, verified like
// Range. The file may be read until Close, for example by sendfile, unless the
// store has moved the value to memory to get rid of a file that was removed long
// ago: then its OS method returns nil and its ReadAt fails with fs.ErrClosed.
func (v *Value) Extent(off, n int64) (segment.Extent, error) {
	src, err := v.check(off, n)
	if err != nil {
		return segment.Extent{}, err
	}
	return segment.Extent{File: src.payload.File, Offset: src.payload.Offset + off, Length: n}, nil
}

// Extents is where the value lies on disk, not verified. The files may be used
// like that of Extent. After Close there are none.
func (v *Value) Extents() []segment.Extent {
	src := v.held.source.Load()
	if src == nil {
		return nil
	}
	return []segment.Extent{{File: src.payload.File, Offset: src.payload.Offset, Length: v.Size()}}
}

// Size of the value in bytes.
func (v *Value) Size() int64 { return v.size }

// Version tells this value from others of the same key.
func (v *Value) Version() Version { return v.version }

// Metadata of the value.
func (v *Value) Metadata() (Metadata, error) {
	src := v.held.source.Load()
	if src == nil {
		return Metadata{}, v.failed(closedHandle("the handle"))
	}
	m, err := metadataOf(src.seg, &src.record)
	runtime.KeepAlive(src)
	return m, err
}

// ModTime is the modification time in the metadata, or zero.
func (v *Value) ModTime() time.Time {
	m, _ := v.Metadata()
	return m.ModTime
}

// ReadAt implements [io.ReaderAt].
func (v *Value) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, v.failed(invalid{fmt.Errorf("negative offset %d", off)})
	}
	if off >= v.Size() {
		return 0, io.EOF
	}
	n := min(int64(len(p)), v.Size()-off)
	src, err := v.check(off, n)
	if err != nil {
		return 0, err
	}
	if err := src.copyTo(p[:n], off); err != nil {
		return 0, v.failed(err)
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (src *valueSource) copyTo(p []byte, off int64) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	err = src.payload.ReadAt(p, off)
	runtime.KeepAlive(src)
	return err
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
	if whence < io.SeekStart || whence > io.SeekEnd {
		return v.pos, v.failed(invalid{fmt.Errorf("seek with whence %d, it must be 0 to 2", whence)})
	}
	if offset < 0 {
		return v.pos, v.failed(invalid{fmt.Errorf("can't seek to %d", offset)})
	}
	v.pos = offset
	return offset, nil
}

// Close ends the use of the value. A second Close does nothing.
func (v *Value) Close() error {
	v.db.closeHandle(v.handle)
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
