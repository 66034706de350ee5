package db

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// manifest is the complete list of the segments of a store. It is immutable;
// a change makes the next generation. Of the MANIFEST files in a directory the
// one with the highest generation counts.
type manifest struct {
	store      segment.StoreID
	generation uint64
	epoch      uint32     // raised by every run that writes
	nextID     segment.ID // no file has this number or a higher one
	nextSeq    uint64     // no record outside the active segment has this number or a higher one
	expiryMark int64      // unix milliseconds; expiry never looks back behind it
	repaired   bool       // files it does not name may still have to go to the trash
	segments   []entry
}

// entry is one segment in the manifest.
type entry struct {
	id       segment.ID
	active   bool
	length   int64 // logical length; of an active segment what is proven durable
	capacity int64 // how long an active segment may get
	salt     uint64
	tally    segment.Tally // of a sealed segment
}

func (m *manifest) entry(id segment.ID) *entry {
	for i := range m.segments {
		if m.segments[i].id == id {
			return &m.segments[i]
		}
	}
	return nil
}

// active returns the entry of the segment that is being written, or nil.
func (m *manifest) active() *entry {
	for i := range m.segments {
		if m.segments[i].active {
			return &m.segments[i]
		}
	}
	return nil
}

func (m *manifest) drop(ids ...segment.ID) {
	m.segments = slices.DeleteFunc(m.segments, func(e entry) bool { return slices.Contains(ids, e.id) })
}

// A manifest file holds the same image twice, the second one at half the
// length of the file, so that a damaged sector takes away one of them only:
//
//	file header, 64 bytes
//	u32 length of the body, u32 flags: 1 repaired
//	body: u64 next id  u64 next seq  i64 expiry mark  u32 segments
//	      per segment u16 length of the entry, entry:
//	      u64 id  u8 state  u64 length  u64 capacity  u64 salt
//	      u64 records  u64 min seq  u64 max seq  u64 sum over header sums
//	u64 xxhash64 of all before
//	zero bytes to a multiple of 4096
const (
	manifestPage   = 4096
	manifestPrefix = segment.HeaderSize + 8
	manifestFixed  = 28
	entrySize      = 65

	flagRepaired = 1

	// maxSegmentBytes bounds where records of a segment can end.
	maxSegmentBytes = segment.MaxStart + maxBatchBytes

	stateActive = 1
	stateSealed = 2
)

func (m *manifest) encode() []byte {
	le := binary.LittleEndian
	b := segment.AppendHeader(nil, segment.Header{
		Magic: segment.MagicManifest, Store: m.store, File: m.generation, Epoch: m.epoch,
	})
	b = le.AppendUint32(b, uint32(manifestFixed+len(m.segments)*(2+entrySize)))
	b = le.AppendUint32(b, m.flags())
	b = le.AppendUint64(b, uint64(m.nextID))
	b = le.AppendUint64(b, m.nextSeq)
	b = le.AppendUint64(b, uint64(m.expiryMark))
	b = le.AppendUint32(b, uint32(len(m.segments)))
	for i := range m.segments {
		b = m.segments[i].append(b)
	}
	b = le.AppendUint64(b, xxhash.Sum64(b))
	b = append(b, make([]byte, -len(b)&(manifestPage-1))...)
	return append(b, b...)
}

func (m *manifest) flags() uint32 {
	if m.repaired {
		return flagRepaired
	}
	return 0
}

func (e *entry) append(b []byte) []byte {
	le := binary.LittleEndian
	state := byte(stateSealed)
	if e.active {
		state = stateActive
	}
	b = le.AppendUint16(b, entrySize)
	b = le.AppendUint64(b, uint64(e.id))
	b = append(b, state)
	for _, v := range []uint64{
		uint64(e.length), uint64(e.capacity), e.salt,
		e.tally.Records, e.tally.MinSeq, e.tally.MaxSeq, e.tally.Sum,
	} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// decodeManifest reads a manifest file, from whichever of its images is whole.
func decodeManifest(b []byte, generation uint64) (*manifest, error) {
	m, err := decodeImage(b, generation)
	if err == nil || errors.Is(err, ErrNewer) {
		return m, err
	}
	if m, err2 := decodeImage(b[len(b)/2:], generation); err2 == nil {
		return m, nil
	}
	return nil, err
}

func decodeImage(b []byte, generation uint64) (*manifest, error) {
	h, err := segment.DecodeHeader(b, segment.MagicManifest)
	if err != nil {
		return nil, err
	}
	if h.File != generation {
		return nil, fmt.Errorf("generation %d under the name of %d", h.File, generation)
	}
	if len(b) < manifestPrefix {
		return nil, errors.New("manifest cut off")
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(b[segment.HeaderSize:]))
	if n < manifestFixed || manifestPrefix+n+8 > int64(len(b)) {
		return nil, errors.New("manifest cut off")
	}
	if xxhash.Sum64(b[:manifestPrefix+n]) != le.Uint64(b[manifestPrefix+n:]) {
		return nil, errors.New("manifest checksum")
	}
	m := &manifest{store: h.Store, generation: generation, epoch: h.Epoch}
	m.repaired = le.Uint32(b[segment.HeaderSize+4:])&flagRepaired != 0
	return m, m.decodeBody(b[manifestPrefix : manifestPrefix+n])
}

// decodeBody reads a body whose checksum was right.
func (m *manifest) decodeBody(b []byte) error {
	le := binary.LittleEndian
	m.nextID = segment.ID(le.Uint64(b))
	m.nextSeq = le.Uint64(b[8:])
	m.expiryMark = int64(le.Uint64(b[16:]))
	count := le.Uint32(b[24:])
	if m.nextSeq-1 > segment.MaxSeq {
		return fmt.Errorf("manifest: next sequence number %d", m.nextSeq)
	}
	b = b[manifestFixed:]
	for range count {
		if len(b) < 2 || len(b) < 2+int(le.Uint16(b)) || le.Uint16(b) < entrySize {
			return errors.New("manifest entry cut off")
		}
		n := 2 + int(le.Uint16(b))
		e, err := decodeEntry(b[2:n])
		if err != nil {
			return err
		}
		if m.entry(e.id) != nil || e.id >= m.nextID {
			return fmt.Errorf("manifest names %s wrongly", e.id.FileName())
		}
		if !e.active && e.tally.MaxSeq >= m.nextSeq {
			return fmt.Errorf("manifest: %s has record %d, which is still to come", e.id.FileName(), e.tally.MaxSeq)
		}
		m.segments = append(m.segments, e)
		b = b[n:]
	}
	if len(b) > 0 {
		return fmt.Errorf("manifest has %d bytes behind its entries", len(b))
	}
	return nil
}

func decodeEntry(b []byte) (e entry, err error) {
	le := binary.LittleEndian
	e.id, e.active = segment.ID(le.Uint64(b)), b[8] == stateActive
	field := func(i int) uint64 { return le.Uint64(b[9+8*i:]) }
	e.length, e.capacity, e.salt = int64(field(0)), int64(field(1)), field(2)
	e.tally = segment.Tally{Records: field(3), MinSeq: field(4), MaxSeq: field(5), Sum: field(6)}
	if e.length < segment.HeaderSize || e.length > maxSegmentBytes || e.capacity < 0 || e.capacity > maxSegmentBytes {
		err = fmt.Errorf("manifest: length of %s out of bounds", e.id.FileName())
	}
	if e.active && e.capacity < e.length {
		err = fmt.Errorf("manifest: %s is longer than it may get", e.id.FileName())
	}
	return e, err
}

// readManifest reads the manifest of the highest generation among names, or
// returns nil if there is none.
func readManifest(fsys vfs.FS, names []string) (*manifest, error) {
	gen, ok := latestGeneration(names)
	if !ok {
		return nil, nil
	}
	b, err := readFile(fsys, segment.ManifestName(gen))
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b, gen)
	if err != nil {
		path := filepath.Join(fsys.Path(), segment.ManifestName(gen))
		if errors.Is(err, ErrNewer) {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return nil, &CorruptError{Path: path, Reason: err.Error()}
	}
	return m, nil
}

func latestGeneration(names []string) (gen uint64, ok bool) {
	for _, name := range names {
		if g, is := segment.ParseManifestName(name); is {
			gen, ok = max(gen, g), true
		}
	}
	return gen, ok
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	const most = 64 << 20 // far above a manifest with every slot taken
	b := make([]byte, min(size, most))
	n, err := f.ReadAt(b, 0)
	if n == len(b) {
		return b, nil
	}
	return nil, err
}

// manifestOwner is the only one in the process who changes the manifest. A
// generation that may or may not have reached the disk ends all changes: what
// it would have removed stays until the store is opened anew.
type manifestOwner struct {
	fs vfs.FS

	mu      sync.Mutex
	current *manifest // never nil
	epoch   uint32    // of this run
	unknown error     // a commit whose outcome nobody knows
	next    vfs.File  // of the next generation, made by prepare; nil if it was not

	files atomic.Uint64 // number of the next file of the store
}

// takeID gives out the number of a new file. It is used up even if the file is
// not made.
func (o *manifestOwner) takeID() segment.ID { return segment.ID(o.files.Add(1) - 1) }

// nextID is the number that takeID gives out next.
func (o *manifestOwner) nextID() segment.ID { return segment.ID(o.files.Load()) }

func (o *manifestOwner) get() *manifest {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// edit applies a change to the current list and makes the result durable.
func (o *manifestOwner) edit(change func(*manifest)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unknown != nil {
		return o.unknown
	}
	next := *o.current
	next.segments = slices.Clone(o.current.segments)
	next.generation++
	next.epoch = o.epoch
	change(&next)
	if err := o.commit(&next); err != nil {
		return fmt.Errorf("manifest generation %d: %w", next.generation, err)
	}
	o.current = &next
	if !next.repaired {
		o.removeBefore(next.generation - 1)
	}
	return nil
}

// editAmong is edit for one that will not be the last: if its file was ready the
// next one's is made so too, since deletes on a full disk count on that.
func (o *manifestOwner) editAmong(change func(*manifest)) error {
	o.mu.Lock()
	ready := o.next != nil
	o.mu.Unlock()
	err := o.edit(change)
	if err == nil && ready {
		o.prepare() // without room it is tried again by the next put
	}
	return err
}

// endRepair says, with the next generation, that everything is in the trash
// which a repair took out of the store.
func (o *manifestOwner) endRepair() {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := *o.current
	next.repaired = false
	o.current = &next
}

// commit writes a generation under a temporary name, syncs it and gives it its
// name, which must be free.
func (o *manifestOwner) commit(m *manifest) error {
	name := segment.ManifestName(m.generation)
	temp := segment.TempName(name)
	if err := o.write(temp, m.encode()); err != nil {
		return errors.Join(err, o.fs.Remove(temp))
	}
	err := o.fs.Rename(temp, name)
	if err == nil {
		err = o.fs.SyncDir()
	}
	if err != nil {
		o.unknown = fmt.Errorf("outcome unknown, reopen the store: %w", err)
		return o.unknown
	}
	return nil
}

// write makes a synced file of b, of the file from prepare if there is one.
func (o *manifestOwner) write(name string, b []byte) (err error) {
	f := o.next
	if o.next = nil; f == nil {
		f, err = createAnew(o.fs, name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := segment.WriteAll(f, [][]byte{b}, 0); err != nil {
		return err
	}
	return f.Sync()
}

// createAnew creates a file. One that a stopped run left half done under the
// same temporary name goes.
func createAnew(fsys vfs.FS, name string) (vfs.File, error) {
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err = fsys.Remove(name); err == nil {
			f, err = fsys.Create(name)
		}
	}
	return f, err
}

// prepare makes the file of the next generation and sets its blocks aside, so
// that a full disk does not stop the next edit.
func (o *manifestOwner) prepare() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next != nil || o.unknown != nil {
		return o.unknown
	}
	const growth = 2 * manifestPage // of the two images
	f, err := createAnew(o.fs, segment.TempName(segment.ManifestName(o.current.generation+1)))
	if err != nil {
		return err
	}
	if err := f.Reserve(0, int64(len(o.current.encode())+growth)); err != nil {
		return errors.Join(err, f.Close(), o.fs.Remove(f.Name()))
	}
	o.next = f
	return nil
}

// unprepare takes back what prepare made.
func (o *manifestOwner) unprepare() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next != nil {
		o.next.Close()
		o.fs.Remove(o.next.Name())
		o.next = nil
	}
}

// removeBefore unlinks older generations. The one before the current stays
// until the current has a successor.
func (o *manifestOwner) removeBefore(gen uint64) {
	names, err := o.fs.List()
	if err != nil {
		return // a leftover is harmless, the next edit tries again
	}
	for _, name := range names {
		if g, ok := segment.ParseManifestName(name); ok && g < gen {
			o.fs.Remove(name)
		}
	}
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func isPathError(err error) bool {
	_, ok := errors.AsType[*fs.PathError](err)
	return ok
}

// outcomeKnown is false once a commit may or may not have reached the disk.
func (o *manifestOwner) outcomeKnown() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unknown == nil
}
