package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// churn overwrites keys again and again and deletes every other one.
func churn(t *testing.T, db *DB, rounds int) map[string]string {
	want := make(map[string]string)
	for round := range rounds {
		for i := range 20 {
			key := fmt.Sprint("key", i)
			want[key] = strings.Repeat(fmt.Sprint(round, " "), 40+i)
			mustPut(t, db, key, want[key])
		}
	}
	for i := 0; i < 20; i += 2 {
		key := fmt.Sprint("key", i)
		delete(want, key)
		if err := db.Delete([]byte(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

func mustHold(t *testing.T, db *DB, want map[string]string) {
	t.Helper()
	for key, value := range want {
		mustGet(t, db, key, value)
	}
	if n := db.Stats().Keys; n != len(want) {
		t.Errorf("%d keys, want %d", n, len(want))
	}
}

// fileBytes is what the segments and blobs on a disk take.
func fileBytes(disk *simdisk.Disk) (n int) {
	for _, name := range disk.Names() {
		if strings.HasSuffix(name, ".seg") || strings.HasSuffix(name, ".blob") {
			b, _ := disk.ReadFile(name)
			n += len(b)
		}
	}
	return n
}

// Space comes back by itself, down to the target, with time and nothing else.
func TestSpaceComesBack(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	want := churn(t, db, 10)
	before := fileBytes(disk)
	disk.Advance(10 * time.Second)
	s := db.Stats()
	after := fileBytes(disk)
	t.Logf("%d bytes, then %d, live %d, %+v", before, after, s.LiveBytes, s.Compaction)
	if most := int(1.3*float64(s.LiveBytes)) + 4<<10; after > most {
		t.Errorf("%d bytes on disk for %d live, want at most %d", after, s.LiveBytes, most)
	}
	mustHold(t, db, want)
	mustHold(t, open(t, "", &Options{FS: disk.Clone()}), want)
}

// Small segments go into what a compaction leaves of its output, so that there
// get to be fewer of them with time.
func TestSmallSegmentsJoin(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 16 << 10})
	want := make(map[string]string)
	for i := range 8 {
		key := fmt.Sprint("small", i)
		want[key] = strings.Repeat(key, 20)
		mustPut(t, db, key, want[key])
		db.write.Lock()
		if err := db.rotate(0); err != nil {
			t.Fatal(err)
		}
		db.write.Unlock()
	}
	for i := range 300 { // and then segments with half their bytes live
		key := fmt.Sprint("key", i)
		want[key] = strings.Repeat(key, 40)
		mustPut(t, db, key, want[key])
		if i%2 > 0 {
			want[key] = "short"
			mustPut(t, db, key, want[key])
		}
	}
	disk.Advance(10 * time.Second)
	for _, s := range db.Stats().Segments {
		if !s.Active && s.Length < 1<<10 {
			t.Errorf("%s is still there, with %d bytes", s.Path, s.Length)
		}
	}
	mustHold(t, db, want)
}

// Compact leaves next to nothing that is dead, tombstones included, and
// reports how far it is.
func TestCompact(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	want := churn(t, db, 10)
	var last CompactProgress
	if err := db.Compact(t.Context(), func(p CompactProgress) { last = p }); err != nil {
		t.Fatal(err)
	}
	s := db.Stats()
	t.Logf("%+v, %d dead of %d live", last, s.DeadBytes, s.LiveBytes)
	if s.DeadBytes*20 > s.LiveBytes {
		t.Errorf("%d dead bytes, %d live", s.DeadBytes, s.LiveBytes)
	}
	if last.Done < last.Total || last.Total == 0 {
		t.Errorf("progress ends with %+v", last)
	}
	mustHold(t, db, want)
	for i := 0; i < 20; i += 2 {
		mustBeGone(t, db, fmt.Sprint("key", i))
	}
	mustHold(t, open(t, "", &Options{FS: disk.Clone()}), want)
}

// Blobs go with the segment whose record named them, and one that is still
// named stays.
func TestCompactBlobs(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10, BlobSize: 4 << 10})
	value := bytes.Repeat([]byte("x"), 10<<10)
	for range 10 {
		mustPut(t, db, "large", string(value))
	}
	mustPut(t, db, "other", string(value))
	if err := db.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	freed := db.Stats().Compaction.BytesFreed
	if freed < 9*10<<10 {
		t.Errorf("%d bytes freed", freed)
	}
	if s := db.Stats(); s.Blobs != 2 {
		t.Errorf("%d blobs left", s.Blobs)
	}
	mustGet(t, db, "large", string(value))
	mustGet(t, db, "other", string(value))
	if n := len(db.blobs.named); n != 2 {
		t.Errorf("%d blobs are named", n)
	}
}

// What the compactor began and did not end leaves nothing behind, whoever
// stops it: a canceled context, Close, a full disk.
func TestCompactStopped(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 16 << 10})
	want := churn(t, db, 10)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Compact(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	fullDisk(disk)
	if err := db.Compact(t.Context(), nil); !errors.Is(err, ErrNoSpace) {
		t.Errorf("compaction on a full disk: %v", err)
	}
	disk.Fail(nil)
	mustHold(t, db, want)
	if db.compactor.running == nil {
		db.compactor.running = db.pick()
		if err := db.goOn(1); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range disk.Names() {
		if id, ok := segment.ParseFileName(name); ok && db.manifests.Current().Entry(id) == nil {
			t.Errorf("%s stays behind", name)
		}
	}
	if err := db.Compact(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A pause keeps the compactor still, and its end sets it going.
func TestPauseCompaction(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	resume := db.PauseCompaction()
	want := churn(t, db, 10)
	disk.Advance(time.Minute)
	if n := db.Stats().Compaction.Compactions; n != 0 {
		t.Errorf("%d compactions during the pause", n)
	}
	resume()
	resume()
	disk.Advance(time.Minute)
	if n := db.Stats().Compaction.Compactions; n == 0 {
		t.Error("no compaction after the pause")
	}
	mustHold(t, db, want)
}

// A damaged segment is not compacted: it stays as it is, is named in Stats,
// and does not stop the compaction of others.
func TestCompactDamaged(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	mustPut(t, db, "damaged", strings.Repeat("value", 100))
	seg := db.writer.active.Segment()
	want := churn(t, db, 10)
	r, err := seg.Peek(segment.HeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	r.Value[7] ^= 1 // a mapping of the simulated disk is memory

	if err := db.Compact(t.Context(), nil); !errors.As(err, new(*CorruptError)) {
		t.Errorf("Compact of a damaged segment: %v", err)
	}
	if err := db.Compact(t.Context(), nil); err != nil {
		t.Errorf("Compact of the others: %v", err)
	}
	s := db.Stats()
	if !slices.Equal(s.Compaction.Suspect, []segment.ID{seg.ID()}) {
		t.Errorf("suspects are %v", s.Compaction.Suspect)
	}
	if n := len(s.Segments); n != 3 {
		t.Errorf("%d segments left, want the damaged one, the others' and the active one", n)
	}
	if _, err := db.Get(nil, []byte("damaged")); !errors.As(err, new(*CorruptError)) {
		t.Errorf("Get of the damaged value: %v", err)
	}
	for key, value := range want {
		mustGet(t, db, key, value)
	}
}

// A segment in which nothing is needed any more goes without being read, even
// if it could not be. One with a tombstone, with a blob or with a record of a
// newer version is read.
func TestCompactUnread(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10, BlobSize: 4 << 10})
	seal := func() (size int64) {
		db.write.Lock()
		defer db.write.Unlock()
		size = db.writer.active.Segment().Len() - segment.HeaderSize
		if err := db.rotate(0); err != nil {
			t.Fatal(err)
		}
		return size
	}
	mustPut(t, db, "key", strings.Repeat("value", 100))
	first := db.writer.active.Segment()
	dead := seal()
	mustPut(t, db, "gone", "x")
	mustPut(t, db, "key", "new")
	mustPut(t, db, "large", strings.Repeat("x", 5<<10))
	seal()
	if err := db.Delete([]byte("gone"), nil); err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "padding", strings.Repeat("x", 2<<10)) // enough for a hint
	w := db.writer.active
	db.writer.seq++
	w.Append(&segment.Record{Kind: 200, Flags: segment.FlagFirst, Seq: db.writer.seq, Key: []byte("newer")})
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	seal()
	mustPut(t, db, "key", "newest")
	mustPut(t, db, "large", "small")
	mustPut(t, db, "padding", "small")
	seal()
	for _, e := range db.missingHints() {
		if err := db.writeHint(db.index.Segments().Find(e.ID), e); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()

	db = open(t, "", &Options{FS: disk, SegmentSize: 4 << 10, BlobSize: 4 << 10})
	clear(db.index.Segments().Find(first.ID()).Bytes()[segment.HeaderSize:first.Len()])
	var last CompactProgress
	if err := db.Compact(t.Context(), func(p CompactProgress) { last = p }); err != nil {
		t.Fatal(err)
	}
	s := db.Stats()
	if got := last.Total - s.Compaction.BytesRead; got != dead || last.Done != last.Total || s.Blobs > 0 {
		t.Errorf("%d bytes were not read, should be %d; %+v, %d blobs", got, dead, last, s.Blobs)
	}
	kept := 0
	for seg := range db.index.Segments().All() {
		for r := range seg.Records(segment.HeaderSize, seg.Len()) {
			if r.Kind == 200 {
				kept++
			}
		}
	}
	if kept != 1 {
		t.Errorf("%d records of a newer version are left, want 1", kept)
	}
	mustHold(t, db, map[string]string{"key": "newest", "large": "small", "padding": "small"})
	mustBeGone(t, db, "gone")
}

// A compaction that can't make its outputs tries again later, and less and
// less often.
func TestCompactorBacksOff(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 4 << 10})
	want := churn(t, db, 10)
	tries := 0
	disk.Fail(func(op, _ string, _ int) error {
		if op == simdisk.OpCreate {
			tries++
			return syscall.EIO
		}
		return nil
	})
	disk.Advance(10 * time.Minute)
	if tries == 0 || tries > 30 {
		t.Errorf("%d tries in ten minutes", tries)
	}
	disk.Fail(nil)
	disk.Advance(10 * time.Minute)
	if n := db.Stats().Compaction.Compactions; n == 0 {
		t.Error("no compaction once there is room")
	}
	mustHold(t, db, want)
}
