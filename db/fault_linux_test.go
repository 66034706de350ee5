//go:build !race

package db

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/segment"
)

// unreadableStore makes a store with two segments and takes the pages of the
// first one away, as if the disk could not read them any more. The keys in it
// begin with bad, those in the other one with good.
func unreadableStore(t *testing.T) *DB {
	dir := t.TempDir()
	db := open(t, dir, &Options{SegmentSize: 64 << 10})
	fill := func(prefix string) {
		for i := range 20 {
			mustPut(t, db, fmt.Sprint(prefix, i), prefix+strings.Repeat("x", 1000))
		}
	}
	fill("bad")
	first := db.writer.active.Segment().Path()
	db.write.Lock()
	err := db.rotate(0)
	db.write.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	fill("good")
	if err := os.Truncate(first, 4096); err != nil {
		t.Fatal(err)
	}
	return db
}

// mustFault checks that an error names the file and the place.
func mustFault(t *testing.T, what string, err error) {
	t.Helper()
	var fault *FaultError
	if !errors.As(err, &fault) || !strings.HasSuffix(fault.Path, ".seg") || fault.Offset < 4096 || !errors.Is(err, syscall.EIO) {
		t.Errorf("%s: %v", what, err)
	}
}

// A page that can't be read is an error with file and offset from everything
// that reads it, and from a put that would replace what it holds. Nothing of
// that put is written. Everything else goes on, and code of the user runs with
// its own setting for faults.
func TestUnreadablePage(t *testing.T) {
	db := unreadableStore(t)
	bad, good := []byte("bad19"), []byte("good1")

	_, err := db.Get(nil, bad)
	mustFault(t, "Get", err)
	mustFault(t, "View", db.View(bad, nil))
	mustFault(t, "Lend", db.Lend(bad, nil))
	mustFault(t, "Prefetch", db.Prefetch(bad, 0))
	_, err = db.Value(bad)
	mustFault(t, "Value", err)
	_, err = db.Snapshot() // sorts the keys
	mustFault(t, "Snapshot", err)

	before := db.Stats().Sequence
	mustFault(t, "Put", db.Put(bad, []byte("new"), nil))
	mustFault(t, "Put with a condition", db.Put(bad, []byte("new"), &PutOptions{IfAbsent: true}))
	mustFault(t, "Delete", db.Delete(bad, nil))
	var b Batch
	b.Put(good, []byte("half a batch"), nil)
	b.Put(bad, []byte("new"), nil)
	mustFault(t, "Apply", db.Apply(&b, nil))
	if after := db.Stats().Sequence; after != before {
		t.Errorf("failed puts used the numbers up to %d, before %d", after, before)
	}

	mustGet(t, db, "good1", "good"+strings.Repeat("x", 1000))
	mustPut(t, db, "good1", "new")
	mustPut(t, db, "another", "new")
	mustGet(t, db, "good1", "new")
	err = db.View(good, func([]byte) error {
		if debug.SetPanicOnFault(false) {
			t.Error("the user's code runs guarded")
		}
		return nil
	})
	if err != nil || debug.SetPanicOnFault(false) {
		t.Errorf("View: %v", err)
	}
}

// The same for what was found before the page was lost.
func TestPageLostUnderHandle(t *testing.T) {
	db := open(t, t.TempDir(), &Options{SegmentSize: 4 << 20, Verify: VerifyAlways})
	mustPut(t, db, "first", "x")
	large := bytes.Repeat([]byte("x"), 2<<20)
	mustPut(t, db, "k", string(large))
	v := mustValue(t, db, "k")
	defer v.Close()
	snap, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	path := v.Extents()[0].File.OS().Name()
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	_, err = v.Bytes()
	mustFault(t, "Bytes", err)
	_, err = v.Range(1<<20, 1000)
	mustFault(t, "Range", err)
	_, err = v.Extent(1<<20, 1000)
	mustFault(t, "Extent", err)
	_, err = v.ReadAt(make([]byte, 1000), 1<<20)
	mustFault(t, "ReadAt", err)
	_, err = io.ReadAll(v)
	mustFault(t, "Read", err)
	_, err = v.WriteTo(io.Discard)
	mustFault(t, "WriteTo", err)
	_, err = snap.Get(nil, []byte("k"))
	mustFault(t, "Snapshot.Get", err)
	mustFault(t, "Snapshot.View", snap.View([]byte("k"), nil))
	_, err = snap.Value([]byte("k"))
	mustFault(t, "Snapshot.Value", err)
	for key, e := range snap.All() {
		if string(key) == "k" {
			_, err = e.Bytes()
			mustFault(t, "Entry.Bytes", err)
		}
	}

	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	src := v.held.source.Load()
	_, err = metadataOf(src.seg, &segment.Record{Meta: src.record.Key}) // a slice of the first page
	if err == nil {
		t.Error("Metadata of a page that is lost")
	}
	n := 0
	for _, e := range snap.All() {
		if n++; n > 1 || e.Err() == nil || !errors.Is(e.Err(), syscall.EIO) {
			t.Errorf("All: entry %d, %v", n, e.Err())
		}
	}
	if n == 0 {
		t.Error("All ends without an error")
	}
}

// lostSegment makes a store with two segments, half of the first one
// superseded, and returns the first.
func lostSegment(t *testing.T, dir string) (*DB, *segment.Segment) {
	db := open(t, dir, &Options{SegmentSize: 64 << 10})
	t.Cleanup(db.PauseCompaction())
	for i := range 20 {
		mustPut(t, db, fmt.Sprint("k", i), strings.Repeat("x", 1000))
	}
	first := db.writer.active.Segment()
	db.write.Lock()
	err := db.rotate(0)
	db.write.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		mustPut(t, db, fmt.Sprint("k", i), "new")
	}
	return db, first
}

// A segment with a page that can't be read is not compacted: it stays, is named
// in Stats, and the process goes on.
func TestCompactUnreadable(t *testing.T) {
	db, first := lostSegment(t, t.TempDir())
	if err := os.Truncate(first.Path(), 4096); err != nil {
		t.Fatal(err)
	}
	mustFault(t, "Compact", db.Compact(t.Context(), nil))
	if err := db.Compact(t.Context(), nil); err != nil {
		t.Errorf("Compact of the others: %v", err)
	}
	if got := db.Stats().Compaction.Suspect; len(got) != 1 || got[0] != first.ID() {
		t.Errorf("suspects are %v", got)
	}
	mustGet(t, db, "k1", "new")
	_, err := db.Get(nil, []byte("k15"))
	mustFault(t, "Get", err)
}

// Pages that are lost after the copies are in the manifest, and before the index
// names them, stop writing; the next Open has everything. Method: they are taken
// away between the two halves of a compaction.
func TestPageLostUnderCompaction(t *testing.T) {
	dir := t.TempDir()
	db, first := lostSegment(t, dir)
	db.compactor.mu.Lock()
	c := db.newCompaction([]*segment.Segment{first})
	for done := false; !done; {
		var err error
		if done, err = c.copySome(copyStep); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(first.Path(), 4096); err != nil {
		t.Fatal(err)
	}
	_, err := c.step(copyStep)
	mustFault(t, "the last step", err)
	db.compactor.mu.Unlock()
	mustFault(t, "Put", db.Put([]byte("k1"), []byte("newer"), nil))
	mustGet(t, db, "k1", "new")
	mustFault(t, "Close", db.Close())

	db = open(t, dir, nil)
	for i := range 20 {
		want := "new"
		if i >= 10 {
			want = strings.Repeat("x", 1000)
		}
		mustGet(t, db, fmt.Sprint("k", i), want)
	}
}

// A page that is lost in one segment does not keep others from being compacted,
// though the keys in some of them have their newest records there.
func TestPageLostElsewhere(t *testing.T) {
	db := open(t, t.TempDir(), &Options{SegmentSize: 64 << 10})
	db.PauseCompaction()
	putAll := func(n int, prefix, value string) {
		for i := range n {
			mustPut(t, db, fmt.Sprint(prefix, i), strings.Repeat(value, 1000))
		}
	}
	putAll(40, "key", "x")
	mustPut(t, db, "alive", strings.Repeat("a", 4000)) // so that the segment is read
	mustSeal(t, db)
	putAll(20, "other", "c")
	mustPut(t, db, "alive too", strings.Repeat("c", 20000))
	mustSeal(t, db)
	putAll(40, "key", "y")
	lost := db.writer.active.Segment().Path()
	mustSeal(t, db)
	putAll(20, "other", "d")
	if err := os.Truncate(lost, 4096); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		db.Compact(t.Context(), nil)
	}
	if s := db.Stats().Compaction; s.Compactions == 0 || s.BytesFreed < 15_000 {
		t.Errorf("%+v", s)
	}
}

// And for a value that is lent.
func TestPageLostUnderLent(t *testing.T) {
	db := open(t, t.TempDir(), &Options{SegmentSize: 4 << 20, Verify: VerifyAlways})
	mustPut(t, db, "first", "x")
	mustPut(t, db, "k", string(bytes.Repeat([]byte("x"), 50_000)))
	err := db.Lend([]byte("k"), func(v Lent) error {
		if err := os.Truncate(v.Extent().File.OS().Name(), 4096); err != nil {
			t.Fatal(err)
		}
		_, err := v.Range(49_000, 1000)
		return err
	})
	mustFault(t, "Range", err)
	if debug.SetPanicOnFault(false) {
		t.Error("the guard is left on")
	}
}

// What can't be moved to memory, because the disk does not give it, keeps
// nothing else from it, and is moved as soon as the disk does. Method: the file
// of the large value whose turn comes first is cut off for a while.
func TestMoveFailsForAWhile(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{})
	values := make(map[string]*Value)
	large := randomBytes(1<<20 + 5)
	for i := range 3 {
		mustPut(t, db, fmt.Sprint(i), string(large))
		v := mustValue(t, db, fmt.Sprint(i))
		defer v.Close()
		values[v.Extents()[0].File.Name()] = v
	}
	seg := db.writer.active.Segment()
	name := seg.Blobs()[0].ID().BlobName()
	path := filepath.Join(db.fs.Path(), name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := db.Delete([]byte(fmt.Sprint(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	compactAll(t, db)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	db.reclaim()
	if p := db.Stats().Pinned; p.Bytes != 1<<20+5 || p.Moved < 2<<20 {
		t.Errorf("with one that can't be read: %+v", p)
	}
	if err := os.WriteFile(path, whole, 0); err != nil {
		t.Fatal(err)
	}
	db.reclaim()
	if p := db.Stats().Pinned; p.Bytes != 0 || p.Moved < 3<<20 {
		t.Errorf("with all of them: %+v", p)
	}
	mustBytes(t, values[name], large)
	runtime.KeepAlive(seg)
}

// A page that can't be read, of a segment that the writer has removed, makes a
// refresh of a follower fail and nothing else: no reader waits for ever for the
// rest of the news. Method: the file is cut short under the follower, behind
// what the writer has compacted away.
func TestFollowerPageLost(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, &Options{SegmentSize: 256 << 10})
	db.PauseCompaction()
	mustPut(t, db, "keep", strings.Repeat("x", 1000))
	mustPut(t, db, "pad", strings.Repeat("x", 64<<10))
	mustPut(t, db, "gone", "x")
	mustPut(t, db, "deleted", "x")
	path := db.writer.active.Segment().Path()
	mustSeal(t, db)
	follower := open(t, dir, &Options{ReadOnly: true})
	mustGet(t, follower, "gone", "x")

	follower.follow.mu.Lock()
	defer follower.follow.mu.Unlock()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, key := range []string{"pad", "gone"} {
		if err := db.Delete([]byte(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, db, "new", "y")
	compactAll(t, db)
	if err := file.Truncate(16 << 10); err != nil {
		t.Fatal(err)
	}
	var tombstones []int64
	for range 2 {
		if err := follower.refresh(); err == nil {
			t.Error("the page can be read")
		}
		tombstones = append(tombstones, 0)
		for _, u := range follower.index.Usages() {
			tombstones[len(tombstones)-1] += u.Tombstones
		}
		if _, err := follower.Get(nil, []byte("new")); !errors.Is(err, ErrNotFound) {
			t.Errorf("half the news is told: %v", err)
		}
		mustGet(t, follower, "keep", strings.Repeat("x", 1000))
	}
	if tombstones[0] != tombstones[1] {
		t.Errorf("%d bytes of tombstones, and when told again %d", tombstones[0], tombstones[1])
	}
}
