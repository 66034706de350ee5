// Package check verifies and repairs the files of a store as they lie in a
// directory, without an open store: [Verify] reports damage, [Repair] makes a
// store that opens out of one that does not.
//
// Both read with system calls, a piece at a time, and go on after damage: a page
// that the disk can't read is damage and not a fault of the process. They share
// the inspector (inspect.go), which reads one segment at a time with the blobs
// that its records name, and the survey (survey.go), which learns from names,
// headers and manifests what belongs to the store.
package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Damage is a stretch of a file that is not what was written there.
type Damage struct {
	Err *segment.CorruptError
	To  int64  // where the stretch ends, 0 if nobody knows
	Key []byte // of the record, nil if it can't be told
}

// inspector reads the files of a store as they lie in the directory, and goes
// on behind damage. It reads with system calls, a piece at a time: a page that
// the disk can't read is damage and not a fault of the process, and no
// scheduler thread is held up by cold pages. One segment is in memory at a time.
type inspector struct {
	ctx      context.Context
	fs       vfs.FS
	progress func(Progress) // may be nil
	at       Progress

	buf     []byte
	rounds  int // how often it had to look at the manifest
	files   int
	gone    bool                            // a blob was missing
	blobs   map[segment.BlobExtent][]Damage // those looked at
	records uint64
	each    func(Record) error // called with every indexed record that verifies; may be nil
}

func newInspector(ctx context.Context, fsys vfs.FS, progress func(Progress)) *inspector {
	return &inspector{ctx: ctx, fs: fsys, progress: progress, blobs: make(map[segment.BlobExtent][]Damage)}
}

// finding is what an inspector knows of one segment.
type finding struct {
	id    segment.ID
	name  string          // of the file, which is another one if files were exchanged
	entry *manifest.Entry // nil if no manifest names the segment

	salt    uint64
	missing bool
	foreign bool // the file is another one, nothing in it is to be believed

	proven int64 // what is below was durable and must be whole
	end    int64 // from proven to here there are complete batches
	tally  segment.Tally
	maxSeq uint64
	newest uint64 // of a segment nobody sealed: highest number of a record that is no copy
	refs   []segment.BlobExtent
	damage []Damage
	lost   []lostRecord
	gaps   []LostRange // where nobody can tell what was there
}

// lostRecord is a record whose key can be read and whose value can't.
type lostRecord struct {
	key  string
	seq  uint64
	kind segment.Kind
	off  int64
}

func (f *finding) sealed() bool { return f.entry != nil && !f.entry.Active }

func (f *finding) note(path string, from, to int64, key []byte, reason string) {
	f.damage = append(f.damage, Damage{&segment.CorruptError{Path: path, Offset: from, Reason: reason}, to, append([]byte(nil), key...)})
}

func (f *finding) gap(path string, from, to int64) {
	f.gaps = append(f.gaps, LostRange{path, from, to})
}

func (in *inspector) path(name string) string { return filepath.Join(in.fs.Path(), name) }

// segment looks at a segment file and all blobs its records name.
func (in *inspector) segment(f *finding, store segment.StoreID) error {
	data, err := in.load(f)
	if errors.Is(err, fs.ErrNotExist) {
		f.missing = true
		return nil
	}
	if err != nil {
		return err
	}
	if err := in.identify(f, data, store); err != nil || f.foreign {
		return err
	}
	if data, err = in.bound(f, data); err != nil {
		return err
	}
	for p := range f.pieces(data) {
		if err := in.piece(f, &p, store); err != nil {
			return err
		}
	}
	f.judgeTally(in.path(f.name))
	return nil
}

// identify proves that the file is the one it should be, and finds the salt of
// its records.
func (in *inspector) identify(f *finding, data []byte, store segment.StoreID) error {
	path := in.path(f.name)
	h, err := segment.DecodeHeader(data, segment.MagicSegment)
	if errors.Is(err, segment.ErrNewer) {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		f.note(path, 0, segment.HeaderSize, nil, err.Error())
		raw, salt, ok := segment.RawIdentity(data)
		f.salt, f.foreign = salt, !ok || raw != store
		if f.entry != nil {
			f.salt, f.foreign = f.entry.Salt, false
		}
		return nil
	}
	f.salt = h.Salt
	switch {
	case h.Store != store:
		f.foreign = true
		f.note(path, 16, 0, nil, fmt.Sprintf("file of another store (%v)", h.Store))
	case f.entry != nil && h.Salt != f.entry.Salt:
		f.foreign = true
		f.note(path, 40, 0, nil, fmt.Sprintf("another file of this name, the manifest has salt %x", f.entry.Salt))
	case f.name != segment.ID(h.File).FileName():
		f.note(path, 32, 0, nil, fmt.Sprintf("file is really number %x", h.File))
	}
	return nil
}

// bound finds out how much of the file counts.
func (in *inspector) bound(f *finding, data []byte) ([]byte, error) {
	if f.sealed() {
		f.proven, f.end = f.entry.Length, f.entry.Length
	} else {
		tail := segment.FindTail(data, segment.HeaderSize, f.salt)
		f.proven = max(tail.Proven, segment.HeaderSize)
		if f.entry != nil {
			f.proven = max(f.proven, f.entry.Length)
		}
		if tail.Valid < f.proven && f.entry != nil {
			// We may have met the writer in the middle of a write. What is
			// below its mark is whole by now, or damaged.
			var err error
			if data, err = in.load(f); err != nil {
				return nil, err
			}
			tail = segment.FindTail(data, segment.HeaderSize, f.salt)
		}
		if tail.Newer != nil {
			return nil, fmt.Errorf("%s: record at offset %d: %w", in.path(f.name), tail.Valid, tail.Newer)
		}
		f.maxSeq = tail.MaxSeq
		f.newest = newestOwn(data, f.salt)
		if f.end = tail.Valid; f.end < f.proven && f.proven <= int64(len(data)) {
			f.end = segment.FindTail(data, f.proven, f.salt).Valid
		}
		f.end = max(f.end, f.proven)
	}
	if n := int64(len(data)); n < f.proven {
		f.note(in.path(f.name), n, f.proven, nil, fmt.Sprintf("file ends here, %d bytes are expected", f.proven))
		f.gap(in.path(f.name), n, f.proven)
	}
	return data[:min(f.end, int64(len(data)))], nil
}

// newestOwn is the highest number of a record that was put there and not copied.
// The last batch need not be complete, nor values whole: Open looks at headers.
func newestOwn(data []byte, salt uint64) (seq uint64) {
	for p := range segment.Scan(data, segment.HeaderSize, salt) {
		if !p.Named {
			break
		}
		if p.Record.Kind != segment.KindWatermark && p.Record.Flags&segment.FlagCopied == 0 {
			seq = max(seq, p.Record.Seq)
		}
	}
	return seq
}

// pieces iterates over what counts in a file: up to proven, and behind it.
func (f *finding) pieces(data []byte) func(yield func(segment.Piece) bool) {
	return func(yield func(segment.Piece) bool) {
		proven := min(f.proven, int64(len(data)))
		for p := range segment.Scan(data[:proven], segment.HeaderSize, f.salt) {
			if !yield(p) {
				return
			}
		}
		for p := range segment.Scan(data, proven, f.salt) {
			if !yield(p) {
				return
			}
		}
	}
}

// piece takes account of one record or of damage.
func (in *inspector) piece(f *finding, p *segment.Piece, store segment.StoreID) error {
	path := in.path(f.name)
	if errors.Is(p.Err, segment.ErrNewer) {
		return fmt.Errorf("%s: record at offset %d: %w", path, p.From, p.Err)
	}
	if err := in.ctx.Err(); err != nil {
		return err
	}
	r := &p.Record
	if p.Named {
		f.maxSeq = max(f.maxSeq, r.Seq)
	}
	if p.Err != nil {
		f.note(path, p.From, p.To, r.Key, p.Err.Error())
	}
	if !p.Usable {
		switch {
		case !p.Named:
			f.gap(path, p.From, p.To)
		case r.Kind.Indexed():
			f.lose(r)
		}
		return nil
	}
	if p.From < f.proven {
		f.tally.Add(r)
	}
	in.records++
	bad, err := in.blob(f, r, store)
	if err != nil {
		return err
	}
	switch {
	case bad:
		f.lose(r)
	case in.each != nil && r.Kind.Indexed():
		return in.each(Record{r, f.id, path})
	}
	return nil
}

func (f *finding) lose(r *segment.Record) {
	f.lost = append(f.lost, lostRecord{string(r.Key), r.Seq, r.Kind, r.Offset})
}

// judgeTally compares a sealed segment that looks whole with the manifest.
func (f *finding) judgeTally(path string) {
	if f.sealed() && len(f.damage) == 0 && f.tally != f.entry.Tally {
		f.gap(path, segment.HeaderSize, f.proven)
		f.note(path, segment.HeaderSize, f.proven, nil, fmt.Sprintf("holds records %+v, the manifest says %+v", f.tally, f.entry.Tally))
	}
}

// blob looks at the file that a record names and reports whether the record
// can't be kept.
func (in *inspector) blob(f *finding, r *segment.Record, store segment.StoreID) (bad bool, err error) {
	if r.Kind != segment.KindBlobRef {
		return false, nil
	}
	list, _, err := segment.DecodeBlobExtents(r.Value)
	if err == nil && len(list) != 1 {
		return false, fmt.Errorf("%s: record at offset %d: %w: %w", in.path(f.name), r.Offset, segment.ErrNewer, segment.ErrParts)
	}
	if err != nil {
		f.note(in.path(f.name), r.Offset, r.End, r.Key, err.Error())
		return true, nil
	}
	x := list[0]
	damage, known := in.blobs[x]
	if !known {
		if damage, err = in.blobFile(x, store); err != nil {
			return false, err
		}
		in.blobs[x] = damage
	}
	for _, d := range damage {
		d.Key = append([]byte(nil), r.Key...)
		f.damage = append(f.damage, d)
	}
	f.refs = append(f.refs, x)
	return len(damage) > 0, nil
}

func (in *inspector) blobFile(x segment.BlobExtent, store segment.StoreID) (list []Damage, err error) {
	name := x.Blob.BlobName()
	in.files++
	found, err := segment.CheckBlob(in.fs, x, store, func(n int64) error { return in.passed(name, n) })
	if errors.Is(err, fs.ErrNotExist) {
		in.gone = true
		return []Damage{{Err: &segment.CorruptError{Path: in.path(name), Reason: "file is missing, a record names it"}}}, nil
	}
	for _, d := range found {
		list = append(list, Damage{Err: d})
	}
	return list, err
}

const (
	readPiece = 1 << 20
	readPage  = 4 << 10
)

// load reads all of a segment file that can hold records. What the disk can't read is damage
// and reads as zeros. The bytes are good until the next load.
func (in *inspector) load(f *finding) ([]byte, error) {
	file, err := in.fs.Open(f.name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	size = min(size, manifest.MaxSegmentBytes)
	if f.sealed() {
		size = min(size, f.entry.Length)
	}
	if int64(cap(in.buf)) < size {
		in.buf = make([]byte, size)
	}
	data := in.buf[:size]
	in.files++
	for off := int64(0); off < size; off += readPiece {
		piece := data[off:min(off+readPiece, size)]
		if n, err := file.ReadAt(piece, off); n < len(piece) {
			if err == io.EOF {
				return data[:off+int64(n)], nil
			}
			in.reread(f, file, piece, off)
		}
		if err := in.passed(f.name, int64(len(piece))); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// reread reads a piece that the disk can't read as a whole page by page.
func (in *inspector) reread(f *finding, file vfs.File, piece []byte, off int64) {
	for len(piece) > 0 {
		page := piece[:min(readPage, len(piece))]
		if n, err := file.ReadAt(page, off); n < len(page) {
			clear(page)
			f.note(in.path(f.name), off, off+int64(len(page)), nil, fmt.Sprint("can't be read: ", err))
		}
		piece, off = piece[len(page):], off+int64(len(page))
	}
}

// passed tells of n more bytes of a file.
func (in *inspector) passed(name string, n int64) error {
	in.at.File = name
	in.at.Done += n
	in.at.Total = max(in.at.Total, in.at.Done)
	if in.progress != nil {
		in.progress(in.at)
	}
	return in.ctx.Err()
}
