package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// victim is a store that damage is done to. Every byte of it that matters was
// proven durable, so nothing may be taken for a torn tail.
type victim struct {
	disk *simdisk.Disk
	want map[string]string
	hurt []place
}

// place is where damage was done: in a file, before end. An error has to name
// one such file, and no offset behind. An empty name stands for any file.
type place struct {
	name string
	end  int64
}

func (v victim) options() *db.Options {
	return &db.Options{FS: v.disk, SegmentSize: 4 << 10, BlobSize: 4 << 10}
}

// smallVictim has one segment.
func smallVictim(t testing.TB) victim {
	v := victim{disk: simdisk.New(), want: make(map[string]string)}
	store, err := db.Open("", v.options())
	check(t, err)
	for i := range 6 {
		v.write(t, store, 0, i)
	}
	v.disk.Advance(watermark)
	check(t, store.Close())
	return v
}

// write does the i-th write of a run.
func (v victim) write(t testing.TB, store *db.DB, run, i int) {
	key := fmt.Sprintf("key %d", (i*7+run*11)%50)
	if i%5 == 4 {
		if err := store.Delete([]byte(key), nil); !errors.Is(err, db.ErrNotFound) {
			check(t, err)
		}
		delete(v.want, key)
		return
	}
	v.put(t, store, key, strings.Repeat(fmt.Sprintf("run %d value %d ", run, i), i*i%37))
}

func (v victim) put(t testing.TB, store *db.DB, key, value string) {
	t.Helper()
	check(t, store.Put([]byte(key), []byte(value), &db.PutOptions{Metadata: label(value)}))
	v.want[key] = value
}

// label is the metadata that a value has in a victim.
func label(value string) *db.Metadata {
	if len(value)%3 != 0 {
		return nil
	}
	return &db.Metadata{ContentType: "text/plain", User: []db.Pair{{Name: "size", Value: strconv.Itoa(len(value))}}}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// damaged returns the same store with one file changed.
func (v victim) damaged(name string, change func(b []byte) []byte) victim {
	disk := v.disk.Clone()
	b, err := disk.ReadFile(name)
	if err != nil {
		panic(err)
	}
	before := len(b)
	b = change(b)
	disk.WriteFile(name, b)
	return victim{disk, v.want, append(slices.Clip(v.hurt), place{name, int64(max(before, len(b)))})}
}

// before says that the last damage lies before this offset.
func (v victim) before(end int64) victim {
	v.hurt = slices.Clone(v.hurt)
	v.hurt[len(v.hurt)-1].end = end
	return v
}

// judge opens the store, to read it and to write it, and reads everything in
// every way. It returns an error unless each answer is right or names what is
// damaged. refused says that Open did not want to.
func (v victim) judge() (refused bool, err error) {
	for _, readOnly := range []bool{true, false} {
		before := changes(v.disk)
		opts := v.options()
		opts.ReadOnly = readOnly
		store, err := db.Open("", opts)
		if (err != nil || readOnly) && changes(v.disk) != before {
			return true, fmt.Errorf("changed something (read-only %v, Open returned %w)", readOnly, err)
		}
		if err != nil {
			if err := v.explicit(err); err != nil {
				return true, err
			}
			refused = true
			continue
		}
		read := v.readAll
		if !readOnly {
			read = v.readKeys // there is no other way to read than before
		}
		if err := errors.Join(read(store), store.Close()); err != nil {
			return refused, fmt.Errorf("read-only %v: %w", readOnly, err)
		}
	}
	return refused, nil
}

// changes counts what was done to files. To make the lock does not count, nor
// does to sync the directory.
func changes(disk *simdisk.Disk) (n int) {
	for _, op := range []string{
		simdisk.OpCreate, simdisk.OpWriteVec, simdisk.OpDatasync, simdisk.OpSync,
		simdisk.OpReserve, simdisk.OpTrim, simdisk.OpRename, simdisk.OpRemove,
	} {
		n += disk.Count(op)
	}
	return n
}

// explicit returns nil for an error that says what is damaged, and where, or
// which file is too new.
func (v victim) explicit(err error) error {
	var damage *db.CorruptError
	switch {
	case errors.Is(err, db.ErrSnapshotExpired) && v.lacksBlob(err.Error()):
		return nil // of a follower, which takes a missing blob for a removed one
	case errors.Is(err, db.ErrNewer) && strings.Contains(err.Error(), v.disk.Path()+"/"):
		return nil
	case !errors.As(err, &damage) || !strings.HasPrefix(damage.Path, v.disk.Path()) || damage.Reason == "":
		return fmt.Errorf("not explicit: %w", err)
	case len(v.hurt) == 0:
		return nil
	}
	for _, p := range v.hurt {
		itself := damage.Path == v.disk.Path()+"/"+p.name
		if strings.Contains(err.Error(), p.name) && (!itself || damage.Offset <= p.end) && damage.Offset >= 0 {
			return nil
		}
	}
	return fmt.Errorf("names another place than %v: %w", v.hurt, err)
}

// lacksBlob reports whether a message names a blob that is not there.
func (v victim) lacksBlob(message string) bool {
	for word := range strings.FieldsFuncSeq(message, func(r rune) bool { return r == '/' || r == ':' || r == ' ' }) {
		if _, ok := segment.ParseBlobName(word); ok {
			return !slices.Contains(v.disk.Names(), word)
		}
	}
	return false
}

// explicitFor also wants to be told the key.
func (v victim) explicitFor(key string, err error) error {
	if !strings.Contains(err.Error(), strconv.Quote(key)) {
		return fmt.Errorf("does not name the key: %w", err)
	}
	return v.explicit(err)
}

// readKeys reads all keys by Get and a snapshot.
func (v victim) readKeys(store *db.DB) error {
	var buf []byte
	for key, want := range v.want {
		var err error
		if buf, err = store.Get(buf[:0], []byte(key)); err != nil {
			err = v.explicitFor(key, err)
		} else {
			err = same(buf, want)
		}
		if err != nil {
			return fmt.Errorf("Get %q: %w", key, err)
		}
	}
	if n := store.Stats().Keys; n != len(v.want) {
		return fmt.Errorf("%d keys, should be %d", n, len(v.want))
	}
	snap, err := store.Snapshot()
	if err != nil {
		return v.explicit(err) // of a key that Open did not read
	}
	return errors.Join(v.readEntries(snap.All()), snap.Close())
}

// readAll reads by View and Value too.
func (v victim) readAll(store *db.DB) error {
	for key, want := range v.want {
		var wrong error
		err := store.View([]byte(key), func(b []byte) error { wrong = same(b, want); return nil })
		if err != nil {
			wrong = v.explicitFor(key, err)
		}
		if wrong != nil {
			return fmt.Errorf("View %q: %w", key, wrong)
		}
		if err := v.readValue(store, key, want); err != nil {
			return fmt.Errorf("Value %q: %w", key, err)
		}
	}
	return v.readKeys(store)
}

func (v victim) readValue(store *db.DB, key, want string) error {
	value, err := store.Value([]byte(key))
	if err != nil {
		return v.explicitFor(key, err)
	}
	defer value.Close()
	if b, err := value.Bytes(); err != nil {
		return v.explicitFor(key, err)
	} else if err := same(b, want); err != nil {
		return err
	}
	m, err := value.Metadata()
	if err != nil {
		return v.explicitFor(key, err)
	}
	return sameLabel(m, want)
}

func (v victim) readEntries(entries iter.Seq2[[]byte, db.Entry]) error {
	seen, previous := 0, []byte(nil)
	for key, e := range entries {
		if e.Err() != nil {
			return v.explicit(e.Err())
		}
		want, ok := v.want[string(key)]
		if !ok || seen > 0 && bytes.Compare(previous, key) >= 0 {
			return fmt.Errorf("entry %q was deleted or never put, or comes after %q", key, previous)
		}
		b, err := e.Bytes()
		if err != nil {
			err = v.explicit(err)
		} else {
			err = same(b, want)
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", key, err)
		}
		m, err := e.Metadata()
		if err != nil {
			return v.explicitFor(string(key), err)
		}
		if err := sameLabel(m, want); err != nil {
			return fmt.Errorf("entry %q: %w", key, err)
		}
		seen, previous = seen+1, key
	}
	if seen != len(v.want) {
		return fmt.Errorf("the iteration has %d keys of %d", seen, len(v.want))
	}
	return nil
}

func same(got []byte, want string) error {
	if string(got) != want {
		return fmt.Errorf("wrong value %.40q of %d bytes, should be %.40q", got, len(got), want)
	}
	return nil
}

func sameLabel(m db.Metadata, value string) error {
	want := db.Metadata{}
	if w := label(value); w != nil {
		want = *w
	}
	if m.ContentType != want.ContentType || !slices.Equal(m.User, want.User) {
		return fmt.Errorf("wrong metadata %+v, should be %+v", m, want)
	}
	return nil
}

// past is a victim with what its files contained at any time, and what an
// active segment says when it ends early.
type past struct {
	victim
	versions map[string][][]byte
	earlier  []string // files of earlier runs
	active   string   // the segment being written, if it was killed
	proof    int64    // where the watermark of that begins
	lengths  []step
}

// step is what the store contains when the active segment ends here.
type step struct {
	length int
	want   map[string]string
}

// victims are a store that was closed and one whose process was killed, after
// it had become idle. Each has about 64 KiB in segments of three runs, blobs
// and manifests, with everything in it that there is.
func victims(t testing.TB) map[string]*past {
	return map[string]*past{"closed": newPast(t, true), "killed": newPast(t, false)}
}

// newVictim is one of victims, for those who don't ask for its past.
func newVictim(t testing.TB, closed bool) victim { return newPast(t, closed).victim }

func newPast(t testing.TB, closed bool) *past {
	p := &past{victim: victim{disk: simdisk.New(), want: make(map[string]string)}, versions: make(map[string][][]byte)}
	store := p.open(t)
	for i := range 25 {
		p.write(t, store, 0, i)
	}
	p.put(t, store, "blob 1", strings.Repeat("of 4 KiB and a bit", 230))
	check(t, store.Close())

	store = p.open(t)
	for i := range 20 {
		p.write(t, store, 1, i)
	}
	p.batch(t, store)
	p.disk.Advance(watermark)
	p.kill()
	p.plantChunked(t)

	store = p.open(t)
	p.earlier = p.disk.Names()
	for i := range 25 {
		p.write(t, store, 2, i)
	}
	p.put(t, store, "blob 2", strings.Repeat("0123456789abcdef!", 270))
	p.note()
	p.delete(t, store, "key 7", "key 14")
	p.endSector(t, store)
	p.disk.Advance(watermark)
	if closed {
		check(t, store.Close())
		p.active = ""
	}
	p.kill()
	for _, name := range p.disk.Names() {
		if _, ok := segment.ParseHintName(name); ok {
			p.disk.Remove(name) // Open is to read what is damaged; see hinted
		}
	}
	return p
}

// open opens the store and keeps what files contain after every operation.
func (p *past) open(t testing.TB) *db.DB {
	p.disk.OnOp(func(int, string) {
		for _, name := range p.disk.Names() {
			b, _ := p.disk.ReadFile(name)
			if old := p.versions[name]; len(old) == 0 || !bytes.Equal(old[len(old)-1], b) {
				p.versions[name] = append(old, b)
			}
		}
	})
	store, err := db.Open("", p.options())
	check(t, err)
	return store
}

// kill goes on with the disk as the next process finds it.
func (p *past) kill() { p.disk = p.disk.Clone() }

func (p *past) batch(t testing.TB, store *db.DB) {
	var b db.Batch
	for i := range 4 {
		key, value := fmt.Sprintf("batch %d", i), strings.Repeat("together ", 9*i)
		b.Put([]byte(key), []byte(value), label(value))
		p.want[key] = value
	}
	b.Delete([]byte("key 1"))
	delete(p.want, "key 1")
	check(t, store.Apply(&b, nil))
}

func (p *past) delete(t testing.TB, store *db.DB, keys ...string) {
	for _, key := range keys {
		if err := store.Delete([]byte(key), nil); !errors.Is(err, db.ErrNotFound) {
			check(t, err)
		}
		delete(p.want, key)
		p.note()
	}
}

// note remembers where the active segment ends and what is in the store.
func (p *past) note() {
	active := newestSegment(p.disk)
	if active != p.active {
		before := p.lengths[max(0, len(p.lengths)-1):]
		if p.active, p.lengths = active, nil; len(before) > 0 {
			p.lengths = []step{{segment.HeaderSize, before[0].want}}
		}
	}
	b, _ := p.disk.ReadFile(active)
	p.lengths = append(p.lengths, step{len(b), maps.Clone(p.want)})
}

// endSector puts values until one ends where a sector does. The watermark that
// proves it then lies in another: no lost sector takes both.
func (p *past) endSector(t testing.TB, store *db.DB) {
	const head, most = 48, 4
	for i := range most {
		key := fmt.Sprintf("one of the last %d", i)
		b, _ := p.disk.ReadFile(p.active)
		n := 2*sectorSize - (len(b)+head+len(key))%sectorSize
		for n%3 == 0 { // which would give it metadata
			n--
		}
		p.put(t, store, key, strings.Repeat("x", n))
		p.note()
		p.proof = int64(p.lengths[len(p.lengths)-1].length)
		if p.proof%sectorSize == 0 {
			return
		}
	}
	t.Fatalf("the last record ends at %d", p.proof)
}

// plantChunked appends a value with a chunk table, which a put writes for much
// larger ones only, and the watermark that proves it. The next run seals the
// segment with both.
func (p *past) plantChunked(t testing.TB) {
	name := newestSegment(p.disk)
	id, _ := segment.ParseFileName(name)
	h, err := segment.ReadHeader(p.disk, id)
	check(t, err)
	file, err := p.disk.ReadFile(name)
	check(t, err)

	value := strings.Repeat("in chunks of 4 KiB each ", 375)
	meta, err := label(value).Encode()
	check(t, err)
	r := segment.NewPut([]byte("chunked"), meta, []byte(value))
	r.Flags, r.Table = r.Flags|segment.FlagChunked, chunkTable(r.Value, 12)
	p.want[string(r.Key)] = value

	start := int64(len(file))
	file = appendRecords(t, file, h.Salt, lastSeq(t, p.disk, id), r)
	end := int64(len(file))
	file = appendRecords(t, file, h.Salt, lastSeq(t, p.disk, id)+1, segment.NewWatermark(0))
	binary.LittleEndian.PutUint64(file[end+8:], uint64(end))
	repairSums(file, h.Salt)
	if n, ok := segment.SizeAt(file, start); !ok || start+n != end {
		t.Fatalf("the chunked record takes %d bytes, not %d", n, end-start)
	}
	p.disk.WriteFile(name, file)
}

// appendRecords appends records with the next sequence numbers. Their checksums
// are to be put right.
func appendRecords(t testing.TB, file []byte, salt, seq uint64, list ...*segment.Record) []byte {
	disk := simdisk.New()
	_, w, err := segment.Create(disk, 1, segment.StoreID{}, 0, 1<<20)
	check(t, err)
	for i, r := range list {
		r.Seq = seq + uint64(i)
		if r.Kind != segment.KindWatermark {
			r.Seq++
		}
		w.Append(r)
	}
	check(t, w.Write())
	b, err := disk.ReadFile(segment.ID(1).FileName())
	check(t, err)
	return append(file, b[segment.HeaderSize:]...)
}

// chunkTable is the table of a value, with chunks of so many bytes.
func chunkTable(value []byte, log uint64) segment.ChunkTable {
	b := binary.LittleEndian.AppendUint64(nil, log)
	for chunk := range slices.Chunk(value, 1<<log) {
		b = binary.LittleEndian.AppendUint64(b, segment.NewPut(nil, nil, chunk).Sum)
	}
	return b
}

func lastSeq(t testing.TB, disk *simdisk.Disk, id segment.ID) (seq uint64) {
	h, err := segment.ReadHeader(disk, id)
	check(t, err)
	seg, err := segment.Open(disk, id, h.Store, segment.WholeFile, 0)
	check(t, err)
	for r, err := range seg.Records(segment.HeaderSize, math.MaxInt64) {
		if err != nil {
			break
		}
		seq = max(seq, r.Seq)
	}
	return seq
}

func newestSegment(disk *simdisk.Disk) (newest string) {
	for _, name := range disk.Names() {
		if _, ok := segment.ParseFileName(name); ok && !isSpare(disk, name) {
			newest = name
		}
	}
	return newest
}

// isSpare reports whether a segment has no record yet.
func isSpare(disk *simdisk.Disk, name string) bool {
	b, _ := disk.ReadFile(name)
	return len(b) == segment.HeaderSize
}

func newestManifest(disk *simdisk.Disk) (newest string) {
	for _, name := range disk.Names() {
		if _, ok := segment.ParseManifestName(name); ok {
			newest = name
		}
	}
	return newest
}
