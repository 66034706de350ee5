package db

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// openImpatient opens a store that tolerates nothing of what readers pin.
func openImpatient(t *testing.T, dir string, o Options) *DB {
	t.Helper()
	o.SegmentSize, o.BlobSize = max(o.SegmentSize, 64<<10), testBlobSize
	db := open(t, dir, &o)
	db.pinned.floor, db.pinned.patience, db.pinned.every = -1<<40, 0, 0
	db.PauseCompaction()
	db.compactor.reclaims.Store(true) // as if the timer were set: the test decides when
	return db
}

// compactAll copies everything live into one new segment and removes all others.
func compactAll(t *testing.T, db *DB) {
	t.Helper()
	db.write.Lock()
	err := db.rotate(0)
	db.write.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	var inputs []*segment.Segment
	for _, e := range db.manifests.Current().Segments {
		if !e.Active {
			inputs = append(inputs, db.index.Segments().Find(e.ID))
		}
	}
	db.compactor.mu.Lock()
	defer db.compactor.mu.Unlock()
	if err := db.newCompaction(inputs).run(); err != nil {
		t.Fatal(err)
	}
}

// reclaimUntil has the store look after removed segments until ok.
func reclaimUntil(t *testing.T, db *DB, what string, ok func(Pinned) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		db.pinned.every = 0
		db.reclaim()
		s := db.Stats().Pinned
		if ok(s) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s: %+v", what, s)
		}
	}
}

// mustValue returns a Value for the caller to close.
func mustValue(t *testing.T, db *DB, key string) *Value {
	t.Helper()
	v, err := db.Value([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustBytes(t *testing.T, v *Value, want []byte) []byte {
	t.Helper()
	b, err := v.Bytes()
	if err != nil || !bytes.Equal(b, want) {
		t.Fatalf("%d bytes, %v; want %d others", len(b), err, len(want))
	}
	return b
}

// What readers hold of removed files is moved to memory and goes with them.
// Neither they nor the slices that they were given before notice.
func TestPinnedIsMoved(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{})
	small, large := []byte("small value"), randomBytes(1<<20+5)
	mustPut(t, db, "small", string(small))
	mustPut(t, db, "large", string(large))
	v, blob := mustValue(t, db, "small"), mustValue(t, db, "large")
	slice, blobSlice := mustBytes(t, v, small), mustBytes(t, blob, large)
	snap, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	blobFile := filepath.Join(db.fs.Path(), blob.Extents()[0].File.Name())
	mustPut(t, db, "small", "new")
	mustPut(t, db, "large", "new")
	compactAll(t, db)
	if s := db.Stats().Pinned; s.Segments == 0 || s.Bytes < int64(len(large)) || s.Moved != 0 {
		t.Fatalf("pinned after a compaction: %+v", s)
	}
	reclaimUntil(t, db, "all is in memory", func(s Pinned) bool { return s.Bytes == 0 && s.Moved > int64(len(large)) })
	if _, err := os.Stat(blobFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of a large value that was removed: %v", err)
	}
	if !bytes.Equal(slice, small) || !bytes.Equal(blobSlice, large) {
		t.Error("slices have changed")
	}
	mustBytes(t, v, small)
	mustBytes(t, blob, large)
	for _, x := range []*Value{v, blob} {
		var sent bytes.Buffer
		if n, err := x.WriteTo(&sent); err != nil || n != x.Size() {
			t.Errorf("WriteTo: %d, %v", n, err)
		}
		if x.Extents()[0].File.OS() != nil {
			t.Error("a value in memory still has a file")
		}
	}
	for key, want := range map[string][]byte{"small": small, "large": large} {
		if got, err := snap.Get(nil, []byte(key)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("snapshot: %d bytes, %v", len(got), err)
		}
	}
	mustGet(t, db, "small", "new")
	v.Close()
	blob.Close()
	snap.Close()
	runtime.GC() // nobody forces one for what is in memory
	reclaimUntil(t, db, "all is gone", func(s Pinned) bool { return s == Pinned{Collections: s.Collections} })
	for _, closed := range []any{v, blob, snap} {
		runtime.KeepAlive(closed)
	}
}

// A large value that nobody reads does not stay because somebody reads a small
// one in the same segment. The store sees to the collections that this takes.
func TestPinnedBlobIsLetGo(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: 1 << 19})
	large := randomBytes(1<<20 + 5)
	mustPut(t, db, "small", "value")
	mustPut(t, db, "large", string(large))
	v, b := mustValue(t, db, "small"), mustValue(t, db, "large")
	blobFile := filepath.Join(db.fs.Path(), b.Extents()[0].File.Name())
	b.Close()
	b = nil
	if err := db.Delete([]byte("large"), nil); err != nil {
		t.Fatal(err)
	}
	compactAll(t, db)
	reclaimUntil(t, db, "the large value is gone", func(s Pinned) bool {
		_, err := os.Stat(blobFile)
		return errors.Is(err, fs.ErrNotExist) && s.Bytes == 0
	})
	mustBytes(t, v, []byte("value"))
}

// When there is no memory for what is pinned, snapshots expire, the oldest
// first. What they gave out stays as it was, and what nobody reads any more goes.
func TestSnapshotExpires(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1})
	for i := range 300 {
		mustPut(t, db, fmt.Sprintf("key%03d", i), "old")
	}
	old, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var keys, values [][]byte
	var revoked error
	for key, e := range old.All() {
		if e.Err() != nil {
			revoked = e.Err()
			break
		}
		value, err := e.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		keys, values = append(keys, key), append(values, value)
		if len(keys) == 10 { // in the middle of a page
			for i := range 300 {
				mustPut(t, db, fmt.Sprintf("key%03d", i), "new")
			}
			compactAll(t, db)
			reclaimUntil(t, db, "the snapshot expires", func(s Pinned) bool { return s.Revoked == 1 })
		}
	}
	if !errors.Is(revoked, ErrSnapshotExpired) || len(keys) != 10 {
		t.Errorf("the iteration ends after %d keys with %v", len(keys), revoked)
	}
	for range 3 {
		runtime.GC()
	}
	for i := range keys {
		if string(keys[i]) != fmt.Sprintf("key%03d", i) || string(values[i]) != "old" {
			t.Fatalf("slice %d became %q, %q", i, keys[i], values[i])
		}
	}
	if _, err := old.Get(nil, []byte("key001")); !errors.Is(err, ErrSnapshotExpired) {
		t.Errorf("Get: %v", err)
	}
	if err := old.View([]byte("key001"), nil); !errors.Is(err, ErrSnapshotExpired) {
		t.Errorf("View: %v", err)
	}
	if _, err := old.Value([]byte("key001")); !errors.Is(err, ErrSnapshotExpired) {
		t.Errorf("Value: %v", err)
	}
	reclaimUntil(t, db, "puts are refused", func(Pinned) bool { return db.pinnedError() != nil })
	if err := db.pinnedError(); !strings.Contains(err.Error(), "snapshot made ") {
		t.Errorf("%v", err) // for the slices it gave out
	}
	fresh, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fresh.Get(nil, []byte("key001")); string(got) != "new" || err != nil {
		t.Errorf("a new snapshot: %q, %v", got, err)
	}
	fresh.Close()
	old.Close()
	old = nil
	reclaimUntil(t, db, "all is gone", func(s Pinned) bool { return s.Segments == 0 && db.pinnedError() == nil })
}

// When nothing more can be done, puts fail and say who holds what. Deletes and
// reads go on, and so do puts once the holder lets go.
func TestPinnedSpace(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1})
	mustPut(t, db, "held", "old")
	mustPut(t, db, "other", "x")
	v := mustValue(t, db, "held")
	mustPut(t, db, "held", string(randomBytes(4<<10)))
	compactAll(t, db)
	reclaimUntil(t, db, "puts are refused", func(Pinned) bool { return db.pinnedError() != nil })

	var err error
	for range 100 { // the next segment is not prepared until this one is half full
		if err = db.Put([]byte("held"), randomBytes(4<<10), nil); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrPinnedSpace) || !strings.Contains(err.Error(), `value "held" made `) ||
		!strings.Contains(err.Error(), "pinned_test.go") {
		t.Errorf("Put: %v", err)
	}
	mustGet(t, db, "other", "x")
	if err := db.Delete([]byte("other"), nil); err != nil {
		t.Errorf("Delete: %v", err)
	}
	mustBytes(t, v, []byte("old"))
	v.Close()
	v = nil
	reclaimUntil(t, db, "puts go on", func(Pinned) bool { return db.pinnedError() == nil })
	for range 20 {
		mustPut(t, db, "held", string(randomBytes(4<<10)))
	}
}

// fewMaps refuses mappings of files with a certain ending.
type fewMaps struct {
	vfs.FS
	refuse *string
}

type fewMapsFile struct {
	vfs.File
	fs fewMaps
}

func (f fewMaps) Create(name string) (vfs.File, error) { return f.wrap(f.FS.Create(name)) }
func (f fewMaps) Open(name string) (vfs.File, error)   { return f.wrap(f.FS.Open(name)) }

func (f fewMaps) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return fewMapsFile{file, f}, nil
}

func (f fewMapsFile) Map(size int64) (*vfs.Mapping, error) {
	if strings.HasSuffix(f.Name(), *f.fs.refuse) {
		return nil, fmt.Errorf("%s: %w", f.Name(), vfs.ErrNoMaps)
	}
	return f.File.Map(size)
}

// openFewMaps opens a store that gets no mappings for files with that ending.
func openFewMaps(t *testing.T, refuse *string, o Options) *DB {
	dir, err := vfs.OpenDir(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	o.FS, o.BlobSize, o.SegmentSize = fewMaps{dir, refuse}, testBlobSize, 64<<10
	return open(t, "", &o)
}

// A large value without a mapping can be read in every way, and its damage is
// found in every one.
func TestBlobWithoutMapping(t *testing.T) {
	refuse := ".blob"
	for _, verify := range []VerifyMode{VerifyFirst, VerifyAlways} {
		db := openFewMaps(t, &refuse, Options{Verify: verify})
		want := randomBytes(1<<20 + 77)
		mustPut(t, db, "k", string(want))
		mustPut(t, db, "small", string(want[:testBlobSize]))
		checkValue(t, db, "small", want[:testBlobSize])
		v := mustValue(t, db, "k")
		if v.held.source.Load().payload.Mapped() {
			t.Fatal("the value is mapped")
		}
		mustBytes(t, v, want)
		if got, err := db.Get(nil, []byte("k")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Get: %d bytes, %v", len(got), err)
		}
		part, err := v.Range(1<<20-5, 10)
		if err != nil || !bytes.Equal(part, want[1<<20-5:][:10]) {
			t.Errorf("Range: %x, %v", part, err)
		}
		damage(t, filepath.Join(db.fs.Path(), v.Extents()[0].File.Name()), 4096+1<<20)
		if _, err := db.Get(nil, []byte("k")); !isDamage(err) {
			t.Errorf("Get of a damaged value: %v", err)
		}
		if verify == VerifyFirst {
			continue // all of it was verified before
		}
		if _, err := v.Range(1<<20, 10); !isDamage(err) {
			t.Errorf("Range of a damaged value: %v", err)
		}
		if _, err := v.ReadAt(make([]byte, 10), 1<<20); !isDamage(err) {
			t.Errorf("ReadAt of a damaged value: %v", err)
		}
		if n, err := v.WriteTo(new(bytes.Buffer)); !isDamage(err) {
			t.Errorf("WriteTo of a damaged value: %d, %v", n, err)
		}
	}
}

func isDamage(err error) bool {
	var damage *CorruptError
	return errors.As(err, &damage)
}

// damage flips a bit in a file.
func damage(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// A segment for which there is no mapping has a collection forced, and if that
// does not help the put fails and names who holds segments.
func TestNoMapsForSegment(t *testing.T) {
	refuse, collections := "none", 0
	db := openFewMaps(t, &refuse, Options{Collect: func() { collections++; refuse = "none" }})
	mustPut(t, db, "k", "v")
	refuse = ".seg"
	db.write.Lock()
	err := db.rotate(0)
	db.write.Unlock()
	if err != nil || collections != 1 {
		t.Errorf("with a collection that helps: %v after %d", err, collections)
	}
	v := mustValue(t, db, "k")
	compactAll(t, db)
	db.pinned.every, db.opts.Collect = 0, func() { collections++ }
	refuse = ".seg"
	db.write.Lock()
	err = db.rotate(0)
	db.write.Unlock()
	if !errors.Is(err, ErrPinnedSpace) || !strings.Contains(err.Error(), `value "k"`) || collections != 2 {
		t.Errorf("with one that does not: %v after %d", err, collections)
	}
	refuse = "none"
	mustPut(t, db, "k", "w")
	mustBytes(t, v, []byte("v"))
}

// With nothing but time, what readers hold of removed files is looked after, and
// only as long as there is any.
func TestReclaimByItself(t *testing.T) {
	disk := newDisk()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	db.pinned.floor, db.pinned.patience = -1<<40, 0
	mustPut(t, db, "k", "old")
	v := mustValue(t, db, "k")
	mustPut(t, db, "k", "new")
	compactAll(t, db)
	if s := db.Stats().Pinned; s.Segments == 0 || s.Moved > 0 {
		t.Fatalf("pinned after a compaction: %+v", s)
	}
	disk.Advance(2 * reclaimEvery)
	if s := db.Stats().Pinned; s.Moved == 0 {
		t.Errorf("not moved to memory: %+v", s)
	}
	mustBytes(t, v, []byte("old"))
	v.Close()
	for range 100 {
		runtime.GC()
		disk.Advance(2 * reclaimEvery)
		if !db.compactor.reclaims.Load() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("the timer goes on: %+v", db.Stats().Pinned)
}

// A large value that a snapshot had to let go while it was being read is not
// damaged. Method: the snapshot is made to expire in the middle of the call.
func TestSnapshotExpiresDuringRead(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1})
	mustPut(t, db, "large", string(randomBytes(1<<20)))
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustPut(t, db, "large", "new")
	compactAll(t, db)
	err = s.read([]byte("large"), func(seg *segment.Segment, off int64) error {
		reclaimUntil(t, db, "the segment lets go", func(Pinned) bool { return len(seg.Blobs()) == 0 })
		_, err := db.appendVerified(nil, seg, off)
		return err
	})
	if !errors.Is(err, ErrSnapshotExpired) || isDamage(err) {
		t.Errorf("reading it: %v", err)
	}
}

// A large value in memory goes when nobody reads it any more, though somebody
// reads a small one in the same segment.
func TestMovedBlobIsLetGo(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{})
	large := randomBytes(1<<20 + 5)
	mustPut(t, db, "small", "value")
	mustPut(t, db, "large", string(large))
	v, b := mustValue(t, db, "small"), mustValue(t, db, "large")
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Delete([]byte("large"), nil); err != nil {
		t.Fatal(err)
	}
	compactAll(t, db)
	moved := func(s Pinned) bool { return s.Bytes == 0 && s.Moved > int64(len(large)) }
	reclaimUntil(t, db, "all is in memory", moved)
	b.Close()
	for range 3 {
		reclaimUntil(t, db, "the snapshot may be asked for it", moved)
	}
	if got, err := s.Get(nil, []byte("large")); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	again, err := s.Value([]byte("large"))
	if err != nil {
		t.Fatal(err)
	}
	slice := mustBytes(t, again, large)
	s.Close()
	for range 3 {
		reclaimUntil(t, db, "it is in use", moved)
	}
	if !bytes.Equal(slice, large) {
		t.Error("the slice has changed")
	}
	again.Close()
	reclaimUntil(t, db, "the large value is gone", func(s Pinned) bool {
		runtime.GC() // nobody forces one for what is in memory
		return s.Moved > 0 && s.Moved < int64(len(large))
	})
	mustBytes(t, v, []byte("value"))
	v.Close()
}
