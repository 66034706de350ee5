package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// hintAll writes the hints of all sealed segments, however short.
func hintAll(t testing.TB, db *DB) (names []string) {
	t.Helper()
	for _, e := range db.manifests.Current().Segments {
		if e.Active {
			continue
		}
		if err := db.writeHint(db.index.Segments().Find(e.ID), e); err != nil {
			t.Fatal(err)
		}
		names = append(names, e.ID.HintName())
	}
	return names
}

// hintedStore is a closed store of many segments, with keys overwritten and
// deleted across them, and a hint for each.
func hintedStore(t testing.TB) (disk *simdisk.Disk, want map[string]string, hints []string) {
	disk, want = simdisk.New(), make(map[string]string)
	rng := rand.New(rand.NewPCG(3, 4))
	for run := range 3 {
		db, err := Open("", &Options{FS: disk, SegmentSize: 8 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			key := fmt.Sprintf("a common beginning/%d", rng.IntN(200))
			if rng.IntN(5) == 0 {
				if err := db.Delete([]byte(key), nil); err != nil && !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
				delete(want, key)
				continue
			}
			want[key] = strings.Repeat(fmt.Sprint(run, i, " "), rng.IntN(20))
			if err := db.Put([]byte(key), []byte(want[key]), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	db, err := Open("", &Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	hints = hintAll(t, db)
	if err := db.Close(); err != nil || len(hints) < 10 {
		t.Fatal(err, hints)
	}
	return disk, want, hints
}

// books is what a store counts.
func books(db *DB) string {
	s := db.Stats()
	return fmt.Sprint(s.Keys, s.LiveBytes, s.DeadBytes, s.Sequence, s.Segments, s.Blobs, s.BlobBytes)
}

// A store that was opened by hints is the same as one that was read, in what
// it holds and what it counts. Method: some of the hints are taken away,
// others damaged; the store opened without any is the one to compare with.
func TestHintsMakeTheSameStore(t *testing.T) {
	disk, want, hints := hintedStore(t)
	scanned := disk.Clone()
	for _, name := range hints {
		scanned.Remove(name)
	}
	wantBooks := books(open(t, "", &Options{FS: scanned, ReadOnly: true}))
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range 60 {
		image := disk.Clone()
		for _, name := range hints {
			switch rng.IntN(min(round, 4) + 1) {
			case 2:
				image.Remove(name)
			case 3:
				data, _ := image.ReadFile(name)
				data[rng.IntN(len(data))] ^= 1
				image.WriteFile(name, data)
			}
		}
		db := open(t, "", &Options{FS: image, ReadOnly: round%2 == 1})
		if got := books(db); got != wantBooks {
			t.Fatalf("round %d: books %s, want %s", round, got, wantBooks)
		}
		for i := range 200 {
			key := fmt.Sprintf("a common beginning/%d", i)
			if value, there := want[key]; there {
				mustGet(t, db, key, value)
			} else {
				mustBeGone(t, db, key)
			}
		}
	}
}

// With hints Open does not read the segments. Method: everything behind their
// headers is lost. The keys are all there, and reading one says which file is
// damaged and where, in every way.
func TestHintsSpareTheSegments(t *testing.T) {
	disk, want, _ := hintedStore(t)
	loseRecords(disk)
	db := open(t, "", &Options{FS: disk})
	if n := db.Stats().Keys; n != len(want) {
		t.Errorf("%d keys, want %d", n, len(want))
	}
	var damage *CorruptError
	for key := range want {
		if _, err := db.Get(nil, []byte(key)); !errors.As(err, &damage) || damage.Offset < segment.HeaderSize {
			t.Fatalf("Get: %v", err)
		}
		if err := db.View([]byte(key), func([]byte) error { return nil }); !errors.As(err, &damage) {
			t.Fatalf("View: %v", err)
		}
	}
	if _, err := db.Snapshot(); !errors.As(err, &damage) {
		t.Errorf("Snapshot: %v", err)
	}
}

// What a hint told of is proven on the first read even where values are not
// verified. Method: bits that say where the value begins and ends.
func TestHintIsProvenByTheRecord(t *testing.T) {
	for _, at := range []int{26, 32} {
		for _, mode := range []VerifyMode{VerifyFirst, VerifyAlways, VerifyNever} {
			disk := simdisk.New()
			fill(t, disk, 10).Close()
			db := open(t, "", &Options{FS: disk})
			hintAll(t, db)
			db.Close()
			name := segment.ID(1).FileName()
			data, _ := disk.ReadFile(name)
			data[segment.HeaderSize+at] ^= 1
			disk.WriteFile(name, data)

			db = open(t, "", &Options{FS: disk, Verify: mode})
			var damage *CorruptError
			if err := db.View([]byte("key0"), func([]byte) error { return nil }); !errors.As(err, &damage) {
				t.Errorf("byte %d, mode %d: %v", at, mode, err)
			}
			mustGet(t, db, "key1", "value1")
		}
	}
}

// loseRecords clears everything behind the headers of the segments.
func loseRecords(disk *simdisk.Disk) {
	for _, name := range disk.Names() {
		if _, ok := segment.ParseFileName(name); ok {
			data, _ := disk.ReadFile(name)
			clear(data[segment.HeaderSize:])
			disk.WriteFile(name, data)
		}
	}
}

// A follower begins with the hints there are, too.
func TestFollowerUsesHints(t *testing.T) {
	disk := simdisk.New()
	fill(t, disk, 10).Close()
	db := open(t, "", &Options{FS: disk})
	hintAll(t, db)
	db.Close()
	loseRecords(disk)
	follower := open(t, "", &Options{FS: disk, ReadOnly: true})
	if n := follower.Stats().Keys; n != 10 {
		t.Errorf("%d keys, want 10", n)
	}
	var damage *CorruptError
	if _, err := follower.Get(nil, []byte("key3")); !errors.As(err, &damage) {
		t.Error(err)
	}
}

// The hint of one history of a file is of no use for another: it would hide
// keys. Method: a store is copied while its segment is being written, so that
// both copies seal it, at different lengths.
func TestHintOfAnotherHistory(t *testing.T) {
	disk := simdisk.New()
	db := fill(t, disk, 10)
	disk.Advance(2 * watermarkIdle)
	early := disk.Clone()
	for i := range 10 {
		mustPut(t, db, fmt.Sprint("late", i), "value")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	other := open(t, "", &Options{FS: early})
	names := hintAll(t, other)
	if len(names) == 0 || names[0] != segment.ID(1).HintName() {
		t.Fatal(names)
	}
	hint, err := early.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	disk.WriteFile(names[0], hint)
	db = open(t, "", &Options{FS: disk})
	for i := range 10 {
		mustGet(t, db, fmt.Sprint("late", i), "value")
		mustGet(t, db, fmt.Sprint("key", i), fmt.Sprint("value", i))
	}
	if db.hints.has(1) {
		t.Error("the hint was used")
	}
}

// Hints come and go with their segments. Short segments need none, a bad one
// is replaced, and one that nobody needs is removed.
func TestHintsComeAndGo(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	for i := range 3 {
		mustPut(t, db, fmt.Sprint("key", i), strings.Repeat("v", maxHintMinimum/2))
	}
	if list := db.missingHints(); len(list) > 0 {
		t.Errorf("active segment in %v", list)
	}
	db.Close()
	id := segment.ID(1)
	if !slices.Contains(disk.Names(), id.HintName()) {
		t.Error("Close writes no hint")
	}
	disk.WriteFile(id.HintName(), []byte("no hint"))
	disk.WriteFile(segment.ID(77).HintName(), []byte("of no segment"))
	disk.WriteFile(segment.TempName(id.HintName()), []byte("half done"))

	db = open(t, "", &Options{FS: disk})
	list := db.missingHints()
	if len(list) != 1 || list[0].ID != id {
		t.Fatalf("hints missing of %v", list)
	}
	if s := db.Stats(); s.Hints != 0 || s.HintsMissing != 1 {
		t.Errorf("%d hints, %d missing", s.Hints, s.HintsMissing)
	}
	if err := db.writeHint(db.index.Segments().Find(id), list[0]); err != nil {
		t.Fatal(err)
	}
	if list := db.missingHints(); len(list) > 0 {
		t.Errorf("still missing: %v", list)
	}
	db.Close()
	db = open(t, "", &Options{FS: disk})
	if !db.hints.has(id) || len(db.missingHints()) > 0 {
		t.Error("the new hint was not used")
	}
	if s := db.Stats(); s.Hints != 1 || s.HintsMissing != 0 {
		t.Errorf("%d hints, %d missing", s.Hints, s.HintsMissing)
	}
	if names := hintNames(disk); len(names) != 1 || names[0] != id.HintName() {
		t.Errorf("hints %q", names)
	}
	mustPut(t, db, "short", "")
	db.Close()
	if n := len(hintNames(disk)); n != 1 {
		t.Errorf("%d hints, one of a short segment", n)
	}
	db = open(t, "", &Options{FS: disk})
	db.retire(id)
	if slices.Contains(disk.Names(), id.HintName()) {
		t.Error("the hint outlives its segment")
	}
}

// hintNames are the hints on a disk, half done ones too.
func hintNames(disk *simdisk.Disk) []string {
	return slices.DeleteFunc(disk.Names(), func(name string) bool { return !strings.HasSuffix(name, ".hint") })
}

// A failing disk costs the hint and nothing else.
func TestHintFails(t *testing.T) {
	for _, op := range []string{simdisk.OpCreate, simdisk.OpWriteVec, simdisk.OpSync, simdisk.OpRename} {
		disk := simdisk.New()
		fill(t, disk, 10).Close()
		db := open(t, "", &Options{FS: disk})
		broken := errors.New("broken")
		disk.Fail(func(o, name string, _ int) error {
			if o == op && strings.HasSuffix(name, ".hint") {
				return broken
			}
			return nil
		})
		e := db.manifests.Current().Segments[0]
		if err := db.writeHint(db.index.Segments().Find(e.ID), e); !errors.Is(err, broken) {
			t.Errorf("%s: %v", op, err)
		}
		disk.Fail(nil)
		if names := hintNames(disk); len(names) > 0 {
			t.Errorf("%s leaves %q", op, names)
		}
		mustPut(t, db, "more", "value")
		db.Close()
	}
}

// Blobs are held and counted by hints as by records, dead ones too: a file
// stays as long as a segment names it, and goes with the last one.
func TestHintsHoldBlobs(t *testing.T) {
	dir := t.TempDir()
	o := &Options{BlobSize: minBlobSize}
	db := open(t, dir, o)
	large := strings.Repeat("x", 2*minBlobSize)
	mustPut(t, db, "live", large)
	mustPut(t, db, "dead", large)
	mustPut(t, db, "dead", "small")
	db.Close()
	db = open(t, dir, o)
	want := books(db)
	hintAll(t, db)
	db.Close()

	db = open(t, dir, o)
	if got := books(db); got != want || !db.hints.has(db.manifests.Current().Segments[0].ID) {
		t.Errorf("books %s, want %s", got, want)
	}
	if n := countFiles(t, dir, ".blob"); n != 2 {
		t.Errorf("%d blobs, want 2", n)
	}
	mustGet(t, db, "live", large)
	for _, n := range db.blobs.named {
		if n != 1 {
			t.Errorf("named by %d records", n)
		}
	}
}

func countFiles(t *testing.T, dir, suffix string) (n int) {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if strings.HasSuffix(f.Name(), suffix) {
			n++
		}
	}
	return n
}

// A segment that can't be read costs its hint and not the process. Method: the
// file is cut off below the mapping, which no store does.
func TestHintOfUnreadableSegment(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, nil)
	mustPut(t, db, "key", strings.Repeat("v", maxHintMinimum))
	if err := os.Truncate(db.writer.active.Segment().Path(), 4096); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// What is dead is known after an Open by hints as after one that reads: the
// large values that no key names, and the bytes of tombstones. Method: two
// segments in which values are superseded within one, by the other and by a
// delete are opened without hints, with both and with either.
func TestHintsTellWhatIsDead(t *testing.T) {
	disk := newDisk()
	o := &Options{FS: disk, BlobSize: minBlobSize}
	large := strings.Repeat("x", 2*minBlobSize)
	db := open(t, "", o)
	for _, key := range []string{"live", "within", "across", "deleted"} {
		mustPut(t, db, key, large)
	}
	mustPut(t, db, "within", large)
	db.Close()
	db = open(t, "", o)
	mustPut(t, db, "across", "small")
	if err := db.Delete([]byte("deleted"), nil); err != nil {
		t.Fatal(err)
	}
	db.Close()

	db = open(t, "", o)
	want := deadBooks(db)
	if n := len(db.blobs.dead); n != 3 {
		t.Fatalf("%d dead blobs without hints, want 3", n)
	}
	names := hintAll(t, db)
	db.Close()
	if len(names) != 2 {
		t.Fatalf("hints %v", names)
	}
	for _, without := range append(names, "nothing") {
		image := disk.Clone()
		image.Remove(without)
		db := open(t, "", &Options{FS: image, BlobSize: minBlobSize})
		if got := deadBooks(db); got != want {
			t.Errorf("without %s: %s, want %s", without, got, want)
		}
		db.Close()
	}
}

// deadBooks is what a store knows of what is dead.
func deadBooks(db *DB) (s string) {
	db.blobs.mu.Lock()
	s = fmt.Sprint(db.blobs.dead, db.blobs.named)
	db.blobs.mu.Unlock()
	for _, e := range db.manifests.Current().Segments {
		seg := db.index.Segments().Find(e.ID)
		s += fmt.Sprintf(" %d: %+v", e.ID, db.index.Usage(seg))
	}
	return s
}

// Hints come by themselves when nothing is to be compacted, one a step, and a
// damaged segment is suspect from then on.
func TestHintsComeByThemselves(t *testing.T) {
	disk := newDisk()
	db := open(t, "", &Options{FS: disk, SegmentSize: 2 << 20})
	for i := range 6 {
		mustPut(t, db, fmt.Sprint("key", i), strings.Repeat("v", 700<<10))
	}
	first := db.index.Segments().Find(1)
	r, err := first.Peek(segment.HeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	first.Bytes()[r.Offset+8] ^= 1 // a mapping of the simulated disk is memory
	disk.Advance(time.Minute)
	if list := db.missingHints(); len(list) > 0 {
		t.Errorf("still missing: %v", list)
	}
	if names := hintNames(disk); !slices.Equal(names, []string{segment.ID(2).HintName()}) {
		t.Errorf("hints %q", names)
	}
	if s := db.Stats().Compaction.Suspect; !slices.Equal(s, []segment.ID{1}) {
		t.Errorf("suspects are %v", s)
	}
}
