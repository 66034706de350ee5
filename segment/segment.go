package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Segment is a segment file, mapped. Its methods are safe for concurrent use.
//
// Everything a Segment hands out points into the mapping and is valid for as
// long as the Segment is reachable: whoever uses such bytes keeps the Segment
// alive to the end of the use. When the collector finds it unreachable, the
// mapping is retired and the file closed.
type Segment struct {
	id     ID
	header Header
	file   vfs.File
	path   string
	m      *vfs.Mapping
	mem    []byte // the mapping, up to the capacity of the segment
	slot   int    // set once by Attach, before anyone else sees the Segment

	end    atomic.Int64 // bytes readers may touch; only grows
	synced atomic.Int64 // bytes known durable; only grows

	chunks sync.Map // offset of a chunked record -> chunkBits
	blobs  sync.Map // ID -> *Blob, of those its records name
}

// WholeFile as a length means up to the present end of the file.
const WholeFile = -1

// Open maps a segment file for reading. Readers see it up to length, which is
// the logical length in the manifest; the file may be longer. capacity is how
// far it may still grow; 0 if it doesn't.
func Open(fsys vfs.FS, id ID, store StoreID, length, capacity int64) (*Segment, error) {
	path := filepath.Join(fsys.Path(), id.FileName())
	file, err := fsys.Open(id.FileName())
	if err != nil {
		return nil, err
	}
	size, err := file.Size()
	if err != nil {
		file.Close()
		return nil, err
	}
	if length == WholeFile {
		length = size
	}
	if size < length {
		file.Close()
		return nil, &CorruptError{path, size, fmt.Sprintf("file ends here, %d bytes are expected", length)}
	}
	header, err := checkHeader(file, path, MagicSegment, id, store)
	if err != nil {
		file.Close()
		return nil, err
	}
	if capacity > 0 {
		capacity = max(capacity, size) // as recovery sees it
	}
	m, err := file.Map(max(capacity, length))
	if err != nil {
		file.Close()
		return nil, err // it names the file
	}
	return newSegment(id, header, file, path, m, length), nil
}

func newSegment(id ID, h Header, file vfs.File, path string, m *vfs.Mapping, length int64) *Segment {
	s := &Segment{id: id, header: h, file: file, path: path, m: m, mem: m.Bytes(), slot: -1}
	s.end.Store(length)
	s.synced.Store(length)
	return s
}

// ReadHeader reads the header of a segment file. An error that is no
// *fs.PathError and does not wrap ErrNewer says that there is no whole header.
func ReadHeader(fsys vfs.FS, id ID) (Header, error) {
	file, err := fsys.Open(id.FileName())
	if err != nil {
		return Header{}, err
	}
	defer file.Close()
	return readHeader(file, MagicSegment)
}

func readHeader(file vfs.File, kind Magic) (Header, error) {
	var b [HeaderSize]byte
	n, err := file.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return Header{}, err
	}
	return DecodeHeader(b[:n], kind)
}

// checkHeader reads the header and makes sure that it belongs to this file.
func checkHeader(file vfs.File, path string, kind Magic, id ID, store StoreID) (Header, error) {
	h, err := readHeader(file, kind)
	switch {
	case errors.Is(err, ErrNewer):
		return h, fmt.Errorf("%s: %w", path, err)
	case isPathError(err):
		return h, err
	case err != nil:
		return h, &CorruptError{path, 0, err.Error()}
	case h.Store != store:
		return h, &CorruptError{path, 16, fmt.Sprintf("file of another store (%v)", h.Store)}
	case ID(h.File) != id:
		return h, &CorruptError{path, 32, fmt.Sprintf("file is really number %x", h.File)}
	}
	return h, nil
}

// isPathError tells a file that can't be read from one that is damaged.
func isPathError(err error) bool {
	_, ok := errors.AsType[*fs.PathError](err)
	return ok
}

// ID is the number of the file.
func (s *Segment) ID() ID { return s.id }

// Path names the file in messages.
func (s *Segment) Path() string { return s.path }

// Store is the store that the file belongs to.
func (s *Segment) Store() StoreID { return s.header.Store }

// Salt of the file.
func (s *Segment) Salt() uint64 { return s.header.Salt }

// File is the segment's file, for extents. It stays open as long as the
// Segment is reachable, unless Migrate drops it.
func (s *Segment) File() vfs.File { return s.file }

// Len is the number of bytes readers may use.
func (s *Segment) Len() int64 { return s.end.Load() }

// Synced is the number of bytes known to be durable.
func (s *Segment) Synced() int64 { return s.synced.Load() }

// Slot is the segment's place in the slot table, -1 before Attach.
func (s *Segment) Slot() int { return s.slot }

// Attach sets the slot. It is called once, before the Segment is shared.
func (s *Segment) Attach(slot int) { s.slot = slot }

// Bytes is the whole mapping. Beyond Len nothing may be touched. It does not
// keep the Segment alive.
func (s *Segment) Bytes() []byte { return s.mem }

// Hold keeps a blob that a record of the segment names for as long as the
// segment is reachable.
func (s *Segment) Hold(b *Blob) { s.blobs.Store(b.id, b) }

// Blob returns a blob that the segment holds, or nil.
func (s *Segment) Blob(id ID) *Blob {
	b, _ := s.blobs.Load(id)
	blob, _ := b.(*Blob)
	return blob
}

// Blobs returns the blobs that the segment holds.
func (s *Segment) Blobs() (list []*Blob) {
	s.blobs.Range(func(_, b any) bool {
		list = append(list, b.(*Blob))
		return true
	})
	return list
}

// Release lets go of a blob.
func (s *Segment) Release(b *Blob) { s.blobs.Delete(b.id) }

// Migrate moves a segment that left the store to memory, for those who still
// read it, so that its file takes no space any more. See vfs.Mapping.Migrate.
func (s *Segment) Migrate() error {
	if err := s.m.Migrate(s.end.Load()); err != nil {
		return err
	}
	s.file.Drop()
	return nil
}

// Populate brings in n bytes from off on, if these are many; see
// vfs.Mapping.Populate.
func (s *Segment) Populate(off, n int64) error { return s.m.Populate(off, n) }

// PeekResident is Peek for whoever must not wait for a disk. Header and key of the
// record are in memory. It is false if metadata is not, as far as resident says, or if
// more is to be read than that: a table behind the value, or a blob.
func (s *Segment) PeekResident(off int64, resident func([]byte) bool) (Record, bool) {
	r, _, ok := peekHead(s.mem[:s.end.Load()], off)
	if !ok || r.Kind == KindBlobRef || r.Flags&FlagChunked != 0 {
		return r, false
	}
	spill := r.Spill()
	return r, len(spill) == 0 || resident(spill)
}

// Head is where header and key of the record at off lie, if the key has so many
// bytes. They are not looked at.
func (s *Segment) Head(off int64, keyLen int) []byte {
	mem := s.mem[:s.end.Load()]
	from := min(off, int64(len(mem)))
	to := min(off+recordHead+int64(keyLen), int64(len(mem)))
	return mem[from:to:to]
}

// Prefetch brings in the record at off, whose key has so many bytes, with system
// calls, see vfs.Mapping.Populate: all of it, but of the values only one that is not
// chunked and has at most maxValue bytes. It proves nothing.
func (s *Segment) Prefetch(off int64, keyLen int, maxValue int64) error {
	if err := s.m.Prefetch(off, int64(len(s.Head(off, keyLen)))); err != nil {
		return err
	}
	r, l, ok := peekHead(s.mem[:s.end.Load()], off)
	if !ok {
		return nil // Read tells what is wrong
	}
	behind, end := l.value+int64(len(r.Value)), l.end
	if r.Flags&FlagChunked != 0 {
		end = min(l.table+pageSize, s.end.Load())
	} else if int64(len(r.Value)) <= maxValue {
		return s.m.Prefetch(off, l.end-off)
	}
	if err := s.m.Prefetch(off, l.value-off); err != nil {
		return err
	}
	return s.m.Prefetch(behind, end-behind) // padding, which is read too, and the table
}

// Ref of the record at off.
func (s *Segment) Ref(off int64) Ref { return MakeRef(s.slot, off) }

// Peek returns the record at off with no check but that it lies within the
// segment. It is for records that were verified before.
func (s *Segment) Peek(off int64) (Record, error) {
	r, _, ok := peek(s.mem[:s.end.Load()], off)
	if !ok {
		return r, s.corrupt(off, errCutOff)
	}
	return r, nil
}

// Read returns the record at off, verified except for the value.
func (s *Segment) Read(off int64) (Record, error) {
	r, err := decode(s.mem[:s.end.Load()], off, s.header.Salt)
	if err != nil {
		return r, s.corrupt(off, err)
	}
	return r, nil
}

// Verify returns the record at off, verified with its value.
func (s *Segment) Verify(off int64) (Record, error) {
	r, err := s.Read(off)
	if err != nil {
		return r, err
	}
	if err := r.VerifyValue(); err != nil {
		return r, s.corrupt(off, fmt.Errorf("key %q: %w", r.Key, err))
	}
	return r, nil
}

// Records iterates over the records in [from, to), each verified except for
// its value. It ends after the first error, which is a *CorruptError.
func (s *Segment) Records(from, to int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		data := s.mem[:min(to, s.end.Load())]
		for off := from; off < to; {
			r, err := decode(data, off, s.header.Salt)
			if err != nil {
				yield(r, s.corrupt(off, err))
				return
			}
			if !yield(r, nil) {
				return
			}
			off = r.End
		}
	}
}

// RecoverTail looks at a segment whose writer is gone. Its Len is that of the
// file; proven is what the manifest knows to be durable.
func (s *Segment) RecoverTail(proven int64) Tail {
	data := s.mem[:s.end.Load()]
	t := scanBatches(data, HeaderSize, s.header.Salt)
	t.probe(data, t.Valid, s.header.Salt) // sabotage: probe-tail
	t.Proven = max(t.Proven, proven)
	return t
}

// FollowTail looks at what another process has appended, or is appending,
// behind from, up to the present size of the file. Complete batches below
// Proven are safe to show. It leaves Len as it is, see Grow.
func (s *Segment) FollowTail(from int64) (Tail, error) {
	size, err := s.file.Size()
	if err != nil {
		return Tail{}, err
	}
	size = min(size, int64(len(s.mem)))
	t, err := s.scanTail(from, size)
	if err == nil && t.Valid < t.Proven {
		// We may have met the writer in the middle of a write. What is below
		// its mark is whole by now, or damaged.
		var again Tail
		again, err = s.scanTail(t.Valid, size)
		again.note(t.Proven, t.MaxSeq)
		t = again
	}
	return t, err
}

func (s *Segment) scanTail(from, size int64) (Tail, error) {
	if err := s.m.Refresh(from, size); err != nil {
		return Tail{}, err
	}
	t := scanBatches(s.mem[:size], from, s.header.Salt)
	t.probe(s.mem[:size], t.Valid, s.header.Salt) // sabotage: probe-followed-tail
	return t, nil
}

// Grow lets readers see more of a segment that another process writes: up to
// end, all of it durable.
func (s *Segment) Grow(end int64) error {
	if err := s.m.Refresh(s.end.Load(), end); err != nil {
		return err
	}
	s.SetLen(end)
	return nil
}

// SetLen sets how much of the segment readers see, all of it durable.
func (s *Segment) SetLen(end int64) {
	s.end.Store(end)
	s.synced.Store(end)
}

// Damage describes damage found at off.
func (s *Segment) Damage(off int64, reason string) error {
	return &CorruptError{s.path, off, reason}
}

func (s *Segment) corrupt(off int64, reason error) error { return corrupt(s.path, off, reason) }

func corrupt(path string, off int64, reason error) error {
	if errors.Is(reason, ErrNewer) {
		return fmt.Errorf("%s: record at offset %d: %w", path, off, reason)
	}
	return &CorruptError{path, off, reason.Error()}
}
