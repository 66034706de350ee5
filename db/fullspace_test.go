package db

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// fullValue is the value of key n on the full disk: most of the first thousands
// and all later ones have 4 KiB.
func fullValue(n int) []byte {
	size := 4 << 10
	if n%100 == 99 && n < 3000 {
		size = 200 << 10
	}
	return bytes.Repeat(fmt.Appendf(nil, "%015d|", n), size/16)
}

func fullKey(n int) []byte { return fmt.Appendf(nil, "key %d", n) }

// smallStore is a store on a disk that is soon full, and what it has to hold.
type smallStore struct {
	*testing.T
	disk *simdisk.Disk
	db   *DB
	rng  *rand.Rand
	want map[int][]byte
	next int
}

// smallDisk is four segments of the largest size, and 64 reserves.
const smallDisk = 64 << 20

func newSmallStore(t *testing.T) *smallStore {
	s := &smallStore{T: t, disk: newDisk(), rng: rand.New(rand.NewPCG(1, 2)), want: make(map[int][]byte)}
	s.disk.Resize(smallDisk)
	s.db = open(t, "", &Options{FS: s.disk, SegmentSize: smallDisk / 4, Sync: SyncNever})
	return s
}

func spaceKey(n int) []byte { return fmt.Appendf(nil, "key %d", n) }

// fill puts values until there is no room, and returns how many bytes.
func (s *smallStore) fill() (n int) {
	s.Helper()
	for {
		value := bytes.Repeat(fmt.Appendf(nil, "%07d,", s.next), 1+s.rng.IntN(8000))
		switch err := s.db.Put(spaceKey(s.next), value, nil); {
		case errors.Is(err, ErrNoSpace):
			return n
		case err != nil:
			s.Fatal(err)
		}
		s.want[s.next] = value
		s.next++
		n += len(value)
	}
}

// thin deletes keys.
func (s *smallStore) thin(which func(n int) bool) {
	s.Helper()
	for _, n := range slices.Sorted(maps.Keys(s.want)) {
		if !which(n) {
			continue
		}
		if err := s.db.Delete(spaceKey(n), nil); err != nil {
			s.Fatalf("delete on a full disk: %v", err)
		}
		delete(s.want, n)
	}
}

// checkNoTemporary finds what was set aside and should have been given back.
func (s *smallStore) checkNoTemporary(disk *simdisk.Disk) {
	s.Helper()
	for _, name := range disk.Names() {
		if segment.IsTempName(name) {
			s.Errorf("%s is left behind", name)
		}
	}
}

func (s *smallStore) check(db *DB) {
	s.Helper()
	for n, want := range s.want {
		if got, err := db.Get(nil, spaceKey(n)); err != nil || !bytes.Equal(got, want) {
			s.Fatalf("key %d: %d bytes, %v; want %d", n, len(got), err, len(want))
		}
	}
	if n := db.Stats().Keys; n != len(s.want) {
		s.Fatalf("%d keys, want %d", n, len(s.want))
	}
}

// Space comes back on a full disk, by itself and in the same run, whichever
// values are deleted: every second or tenth of them, so that no segment is free
// of live ones, or all the older ones. Nothing acknowledged is lost, and the
// deletes never lack room, though compaction is at work between them. Method: a
// simulated disk of 64 MiB is filled, thinned out and filled again, three times.
func TestFullDiskGivesSpaceBack(t *testing.T) {
	for name, which := range map[string]func(s *smallStore, round, n int) bool{
		"half":  func(_ *smallStore, _, n int) bool { return n%2 == 0 },
		"tenth": func(_ *smallStore, round, n int) bool { return n%10 == round },
		"older": func(s *smallStore, _, n int) bool { return n < s.next*2/3 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSmallStore(t)
			if first := s.fill(); first < smallDisk/4*3 {
				t.Errorf("full after %d bytes", first)
			}
			for round := range 3 {
				before := s.bytes()
				s.thin(func(n int) bool { s.disk.Advance(time.Millisecond); return which(s, round, n) })
				gone := before - s.bytes()
				again := 0
				for deadline := time.Now().Add(time.Minute); again < gone/2 && time.Now().Before(deadline); {
					s.mayCollect()
					s.disk.Advance(time.Second)
					again += s.fill()
				}
				if again < gone/2 {
					t.Errorf("round %d: %d bytes were deleted, room for %d came back", round, gone, again)
				}
				s.check(s.db)
			}
			killed := open(t, "", &Options{FS: s.disk.Clone()})
			s.check(killed)
			if err := s.db.Close(); err != nil {
				t.Error(err)
			}
			if s.checkNoTemporary(s.disk); !t.Failed() {
				s.check(open(t, "", &Options{FS: s.disk}))
			}
		})
	}
}

// Space comes back also if the values are just too long for two of them to fit
// what is the shortest segment then: what each of these leaves unused is not set
// aside.
func TestFullDiskOfLargeValues(t *testing.T) {
	const size = 1100 << 10
	disk := newDisk()
	disk.Resize(192 << 20)
	db := open(t, "", &Options{FS: disk, SegmentSize: 8 << 20, Sync: SyncNever})
	value := bytes.Repeat([]byte("large..."), size/8)
	n := 0
	put := func() error { return db.Put(spaceKey(n), value, nil) }
	for ; put() == nil; n++ {
	}
	if err := put(); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	deleted := 0
	for i := 3; i < n/2; i += 7 { // one in each of the older segments
		if err := db.Delete(spaceKey(i), nil); err != nil {
			t.Fatal(err)
		}
		deleted++
	}
	again := 0
	for range 60 {
		for disk.Advance(time.Second); put() == nil; n++ {
			again++
		}
	}
	if again < deleted/2 {
		t.Errorf("%d values deleted, room for %d came back in a minute, %d failures in a row", deleted, again, db.compactor.failures)
	}
	if err := db.Compact(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// mayCollect lets the next collection be forced at once: a second of the disk's
// clock takes no time.
func (s *smallStore) mayCollect() {
	s.db.pinned.mu.Lock()
	defer s.db.pinned.mu.Unlock()
	s.db.pinned.last = time.Time{}
}

func (s *smallStore) bytes() (n int) {
	for _, value := range s.want {
		n += len(value)
	}
	return n
}

// What compaction copies takes none of the room that deletes may need. Method: on
// a full disk there is never less of it after a file operation than before, nor
// on one with some room less than a reserve.
func TestCompactionLeavesRoom(t *testing.T) {
	s := newSmallStore(t)
	s.fill()
	s.thin(func(n int) bool { return n%2 == 0 })
	least, _ := s.disk.Free()
	least = min(least, s.db.reserveSize())
	s.disk.OnOp(func(_ int, op string) {
		if free, _ := s.disk.Free(); free < least {
			t.Errorf("%d bytes left after %s", free, op)
		}
	})
	s.disk.Advance(time.Minute)
	if err := s.db.Compact(t.Context(), nil); err != nil {
		t.Error(err)
	}
	s.disk.OnOp(nil)
	if n := s.db.Stats().Compaction.Compactions; n < 3 {
		t.Errorf("%d compactions", n)
	}
	s.check(s.db)
}

// Compact on a disk without any room works with what is held for it. If nothing
// is, it begins with segments that need none, which makes room for the others;
// and if there are none it says that there is no room.
func TestCompactWithoutRoom(t *testing.T) {
	for name, c := range map[string]struct{ held, dead, fails bool }{
		"blocks held":   {held: true},
		"dead segments": {dead: true},
		"neither":       {fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSmallStore(t)
			s.db.PauseCompaction()
			s.fill()
			s.thin(func(n int) bool { return n%2 == 0 || c.dead && n > s.next/2 })
			if !c.held {
				s.db.compactor.room.lend(s.disk)
			}
			free, _ := s.disk.Free()
			s.disk.WriteFile("ballast", make([]byte, free))
			before := fileBytes(s.disk)
			err := s.db.Compact(t.Context(), nil)
			if c.fails != errors.Is(err, ErrNoSpace) || !c.fails && err != nil {
				t.Errorf("Compact: %v", err)
			}
			if after := fileBytes(s.disk); !c.fails && after > before*2/3 {
				t.Errorf("%d bytes, %d before", after, before)
			}
			if !s.db.manifests.Prepared() {
				t.Error("the next manifest, which deletes may need, is not ready any more")
			}
			s.check(s.db)
		})
	}
}

// Compact says that there was no room for a part of what it had to do also if a
// small segment, which gives nothing back, does fit.
func TestCompactWithoutRoomForSome(t *testing.T) {
	const large = 1 << 30
	disk := newDisk()
	disk.Resize(large)
	db := open(t, "", &Options{FS: disk, SegmentSize: 1 << 20, Sync: SyncNever})
	db.PauseCompaction()
	for i := range 90 {
		mustPut(t, db, fmt.Sprint("key", i), strings.Repeat("x", 10<<10))
	}
	for i := 0; i < 90; i += 2 {
		mustPut(t, db, fmt.Sprint("key", i), "")
	}
	mustSeal(t, db)
	mustPut(t, db, "small", "x")
	mustSeal(t, db)
	free, _ := disk.Free()
	disk.Resize(large - free + db.reserveSize() + 100<<10)
	if err := db.Compact(t.Context(), nil); !errors.Is(err, ErrNoSpace) {
		t.Errorf("%v, and %d bytes are left, %d live", err, db.Stats().Compaction.Reclaimable, db.Stats().LiveBytes)
	}
	disk.Resize(large)
	if err := db.Compact(t.Context(), nil); err != nil || db.Stats().Compaction.Reclaimable > 0 {
		t.Errorf("with room: %v, and %d bytes are left", err, db.Stats().Compaction.Reclaimable)
	}
}

// boastful says that it has much more room than it gives.
type boastful struct{ *simdisk.Disk }

func (d boastful) Free() (int64, error) {
	free, err := d.Disk.Free()
	return free + 1<<30, err
}

// What there turns out to be no room to copy does not keep all else from being
// compacted, and is not tried all the time; with more room its turn comes.
func TestNoRoomForBest(t *testing.T) {
	const large = 1 << 30
	disk := boastful{newDisk()}
	disk.Resize(large)
	db := open(t, "", &Options{FS: disk, SegmentSize: 1 << 20, Sync: SyncNever})
	resume := db.PauseCompaction()
	halfDead := func(name string, n int) segment.ID {
		for i := range 2 * n {
			mustPut(t, db, fmt.Sprint(name, i/2), strings.Repeat("x", 10<<10))
		}
		id := db.writer.active.Segment().ID()
		mustSeal(t, db)
		return id
	}
	best, other := halfDead("best", 45), halfDead("other", 10)
	free, _ := disk.Disk.Free()
	disk.Resize(large - free + 300<<10)
	resume()
	before := disk.Count(simdisk.OpCreate)
	disk.Advance(time.Minute)
	if m := db.manifests.Current(); m.Entry(other) != nil || m.Entry(best) == nil {
		t.Errorf("of the segments %v and %v, the first of which does not fit, there are %+v", best, other, m.Segments)
	}
	if n := disk.Count(simdisk.OpCreate) - before; n > 30 {
		t.Errorf("%d files were made in a minute", n)
	}
	disk.Resize(large)
	disk.Advance(2 * time.Second)
	if db.manifests.Current().Entry(best) != nil {
		t.Error("it is still there though there is room")
	}
}

// Puts leave room for deletes, however full the last segment is. Method: disks of
// several sizes are filled with long keys, which take as much to delete as to put,
// and then to the last byte; no compaction is at work.
func TestPutsLeaveRoomForDeletes(t *testing.T) {
	const keyLen, sizes = 4000, 8
	key := func(n int) []byte { return fmt.Appendf(nil, "%0*d", keyLen, n) }
	for i := range sizes {
		disk := newDisk()
		disk.Resize(4<<20 + int64(i)*70<<10)
		db := open(t, "", &Options{FS: disk, SegmentSize: 1 << 20, Sync: SyncNever})
		db.PauseCompaction()
		n := 0
		for ; ; n++ {
			if err := db.Put(key(n), nil, nil); errors.Is(err, ErrNoSpace) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		free, _ := disk.Free()
		disk.WriteFile("ballast", make([]byte, free))
		deleted := 0
		for deleted < n && db.Delete(key(deleted), nil) == nil {
			deleted++
		}
		if room := int64(deleted * keyLen); room < db.reserveSize()/2 {
			t.Errorf("size %d: %d of %d deletes before the disk was full, %d bytes", i, deleted, n, room)
		}
	}
}

// A disk that is full of keys, with next to no values, comes back too, though
// their tombstones take more room than there is to copy them. With CROWFLY_FULL
// keys are short, and four times as many.
func TestFullDiskOfKeys(t *testing.T) {
	const batch = 1000
	keyLen := 200
	if os.Getenv("CROWFLY_FULL") != "" {
		keyLen = 40
	}
	if underRace {
		t.Skip("takes minutes under the race detector, and has one goroutine")
	}
	s := newSmallStore(t)
	key := func(i int) []byte { return fmt.Appendf(nil, "%0*d", keyLen, i) }
	keys := 0
	for err := error(nil); err == nil; keys += batch {
		var b Batch
		for i := range batch {
			b.Put(key(keys+i), []byte("a short value"), nil)
		}
		if err = s.db.Apply(&b, nil); err != nil && !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
	}
	for range 5 {
		for i := 0; i < keys; i += batch {
			s.disk.Advance(100 * time.Millisecond)
			var b Batch
			for j := range batch {
				b.Delete(key(i + j))
			}
			if err := s.db.Apply(&b, nil); err != nil && !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
		}
		s.mayCollect()
		s.disk.Advance(10 * time.Minute)
	}
	if err := s.db.Compact(t.Context(), nil); err != nil {
		t.Error(err)
	}
	free := int64(0)
	for deadline := time.Now().Add(time.Minute); free < smallDisk/2 && time.Now().Before(deadline); {
		s.mayCollect()
		s.disk.Advance(time.Second)
		free, _ = s.disk.Free()
	}
	if n := s.db.Stats().Keys; n > 0 || free < smallDisk/2 {
		t.Errorf("%d keys, %d bytes free of %d", n, free, smallDisk)
	}
}
