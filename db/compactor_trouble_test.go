package db

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

func mustSeal(t *testing.T, db *DB) {
	t.Helper()
	db.write.Lock()
	defer db.write.Unlock()
	if err := db.rotate(0); err != nil {
		t.Fatal(err)
	}
}

// thirdsOverwritten puts values and then every third of them anew.
func thirdsOverwritten(t *testing.T, db *DB) {
	t.Helper()
	for round := range 2 {
		for i := 0; i < 400; i += 1 + 2*round {
			mustPut(t, db, fmt.Sprint("key", i), strings.Repeat(fmt.Sprint(round), 1000))
		}
	}
}

// Dead blobs that the active segment names go from a store that nobody writes to
// any more: all that is dead lies there.
func TestDeadBlobsOfIdleStore(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 1 << 20, BlobSize: 4 << 10})
	value := bytes.Repeat([]byte("x"), 400<<10)
	for range 10 {
		mustPut(t, db, "large", string(value))
	}
	disk.Advance(10 * time.Minute)
	if n := len(db.blobs.named); n != 1 {
		t.Errorf("%d blobs are named after ten idle minutes", n)
	}
}

// Once nobody knows which manifest counts, the compactor makes no more files: it
// could not get rid of them.
func TestCompactorEndsWithWriting(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	resume := db.PauseCompaction()
	thirdsOverwritten(t, db)
	before := fileBytes(disk)
	disk.Fail(func(op, name string, _ int) error {
		if op == simdisk.OpRename && strings.Contains(name, "MANIFEST") {
			return syscall.EIO
		}
		return nil
	})
	resume()
	disk.Advance(2 * time.Second)
	disk.Fail(nil)
	if err := db.Put([]byte("key"), []byte("value"), nil); err == nil {
		t.Fatal("writing goes on")
	}
	once := fileBytes(disk)
	disk.Advance(time.Hour)
	if after := fileBytes(disk); after != once {
		t.Errorf("grew from %d to %d, and in the next hour to %d bytes, without a write", before, once, after)
	}
}

// Hints do not keep compaction from going on, however far it is behind.
func TestHintsLeaveTimeForCompaction(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10, CompactionRate: 64 << 10})
	for range 200 {
		for range 16 { // twice as much in a second
			mustPut(t, db, "hot", strings.Repeat("x", 8<<10))
		}
		disk.Advance(time.Second)
	}
	if n := fileBytes(disk); n > 20*64<<10 {
		t.Errorf("%d bytes on disk for one value of 8 KiB", n)
	}
}

// Hints keep up with what is sealed and what compaction makes, so that an Open
// after a crash reads little else. Method: keys are overwritten without an end,
// with a pause now and then that is long enough for a few steps.
func TestHintsKeepUp(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	rng := rand.New(rand.NewPCG(1, 2))
	most := 0
	for round := range 400 {
		for range 32 {
			mustPut(t, db, fmt.Sprint("key", rng.IntN(2000)), strings.Repeat("x", 1<<10))
		}
		disk.Advance(compactEvery)
		if round > 100 {
			most = max(most, len(db.missingHints()))
		}
	}
	if s := db.Stats().Compaction; s.Compactions < 20 || most > 3 {
		t.Errorf("%d segments were without a hint at once, of %d, after %d compactions", most, len(db.manifests.Current().Segments), s.Compactions)
	}
}

// damageNewest makes a store in which the newest record of "key" is damaged. An
// older one and a tombstone between the two lie in a segment with much dead.
func damageNewest(t *testing.T) (db *DB, disk *simdisk.Disk, damaged segment.ID) {
	disk = simdisk.New()
	db = open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	db.PauseCompaction()
	mustPut(t, db, "key", strings.Repeat("deleted", 10))
	if err := db.Delete([]byte("key"), nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		mustPut(t, db, "other", strings.Repeat("x", 1000))
	}
	mustSeal(t, db)
	mustPut(t, db, "key", "newest")
	seg := db.writer.active.Segment()
	mustSeal(t, db)
	mustPut(t, db, "last", "z")
	r, err := seg.Peek(segment.HeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	r.Key[0] ^= 1 // a mapping of the simulated disk is memory
	return db, disk, seg.ID()
}

// A segment with older records of a key whose newest one is damaged is not
// compacted: to keep them would be to copy them for ever, and to drop them to take
// from repair what it could still save.
func TestCompactBesideDamage(t *testing.T) {
	db, _, damaged := damageNewest(t)
	older := db.manifests.Current().Segments[0].ID
	for range 3 {
		db.Compact(t.Context(), nil)
	}
	s := db.Stats().Compaction
	if s.Compactions > 1 || !slices.Contains(s.Suspect, older) || db.manifests.Current().Entry(older) == nil {
		t.Errorf("%d compactions, suspects %v, %d is damaged", s.Compactions, s.Suspect, damaged)
	}
}

// A value that was deleted does not come back though the newest record of its key
// is damaged, and repair has only older ones to choose from.
func TestDeletedBesideDamage(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		db, disk, damaged := damageNewest(t)
		if compacted {
			db.Compact(t.Context(), nil)
			db.Compact(t.Context(), nil)
		}
		db.Close()
		disk = disk.Clone()
		b, err := disk.ReadFile(damaged.FileName())
		if err != nil {
			t.Fatal(err)
		}
		if at := segment.HeaderSize + bytes.Index(b[segment.HeaderSize:], []byte("keynewest")); at > segment.HeaderSize {
			b[at] ^= 1
			disk.WriteFile(damaged.FileName(), b)
		}
		if _, err := check.Repair(t.Context(), "", &check.RepairOptions{FS: disk}); err != nil {
			t.Fatal(err)
		}
		mustBeGone(t, open(t, "", &Options{FS: disk}), "key")
	}
}

// Records whose kind only a newer version knows do not count as something to be
// given back.
func TestCompactNewerRecords(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	mustPut(t, db, "a", "b")
	w := db.writer.active
	for i := range 300 {
		db.writer.seq++
		w.Append(&segment.Record{Kind: 200, Flags: segment.FlagFirst, Seq: db.writer.seq, Key: fmt.Appendf(nil, "newer %100d", i)})
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	db.Close()
	db = open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
	mustPut(t, db, "c", "d")
	disk.Advance(3 * time.Minute)
	if n := db.Stats().Compaction.Compactions; n > 1 {
		t.Errorf("%d compactions", n)
	}
}

// Compact does not say that all is done when a part of it met a full disk, or
// failed in a step that the background did.
func TestCompactKnowsWhatFailed(t *testing.T) {
	for name, disturb := range map[string]func(db *DB, disk *simdisk.Disk) func(CompactProgress){
		"no space": func(_ *DB, disk *simdisk.Disk) func(CompactProgress) {
			n := 0
			disk.Fail(func(op, name string, _ int) error {
				if op == simdisk.OpReserve && strings.HasSuffix(name, ".seg") && n < 2 {
					n++
					return syscall.ENOSPC
				}
				return nil
			})
			return nil
		},
		"in the background": func(db *DB, disk *simdisk.Disk) func(CompactProgress) {
			first := true
			return func(CompactProgress) {
				if !first {
					return
				}
				first = false
				disk.Fail(func(op, name string, _ int) error {
					if op == simdisk.OpWriteVec && strings.HasSuffix(name, ".seg") {
						return syscall.EIO
					}
					return nil
				})
				db.compactTimer()
				disk.Fail(nil)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := simdisk.New()
			db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
			thirdsOverwritten(t, db)
			err := db.Compact(t.Context(), disturb(db, disk))
			if s := db.Stats(); err == nil && s.Compaction.Reclaimable > s.LiveBytes/10 {
				t.Errorf("Compact says that all is done, and %d bytes are left", s.Compaction.Reclaimable)
			}
		})
	}
}

// Compact does not fail for what a compaction of the background met, which it
// found under way, nor the sooner for a step of its own that the background did.
// Method: the output of the compaction that is under way once gets no room.
func TestCompactBesideBackground(t *testing.T) {
	for name, own := range map[string]bool{"background's": false, "its own": true} {
		t.Run(name, func(t *testing.T) {
			disk := newDisk()
			db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10})
			thirdsOverwritten(t, db)
			failed := false
			failOnce := func() {
				output := db.compactor.running.outputs[0].Segment().ID().FileName()
				disk.Fail(func(op, name string, _ int) error {
					if op != simdisk.OpWriteVec || name != output || failed {
						return nil
					}
					failed = true
					return syscall.ENOSPC
				})
			}
			if !own {
				for i := 0; db.compactor.running == nil && i < 100; i++ {
					db.compactTimer() // it writes hints first
				}
				failOnce()
			}
			err := db.Compact(t.Context(), func(CompactProgress) {
				if own && db.compactor.running != nil {
					own = false
					failOnce()
					db.compactTimer()
				}
			})
			if s := db.Stats(); err != nil || s.Compaction.Reclaimable > s.LiveBytes/10 {
				t.Errorf("%v, and %d bytes are left", err, s.Compaction.Reclaimable)
			}
			if !failed {
				t.Error("nothing has failed")
			}
		})
	}
}

// A pause takes from Compact what it has borrowed. Compact does that part again,
// and does not say that it is done before.
func TestPauseDuringCompact(t *testing.T) {
	s := newSmallStore(t)
	s.fill()
	s.thin(func(n int) bool { return n%2 > 0 })
	paused := false
	err := s.db.Compact(t.Context(), func(CompactProgress) {
		if c := s.db.compactor.running; !paused && c != nil && c.borrowed {
			paused = true
			s.db.PauseCompaction()
			if s.db.compactor.room.lent {
				t.Error("it has not given back what it has borrowed")
			}
		}
	})
	if !paused {
		t.Error("nothing was borrowed")
	}
	if after := s.db.Stats(); err != nil || after.Compaction.Reclaimable > after.LiveBytes/20 {
		t.Errorf("%v, and %d bytes are left", err, after.Compaction.Reclaimable)
	}
}

// Compact that ends early during a pause keeps nothing borrowed: nobody would go on
// with it.
func TestCompactStoppedDuringPause(t *testing.T) {
	s := newSmallStore(t)
	s.fill()
	s.thin(func(n int) bool { return n%2 > 0 })
	s.db.PauseCompaction()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.db.Compact(ctx, func(CompactProgress) {
		if c := s.db.compactor.running; c != nil && c.borrowed {
			cancel()
		}
	})
	if ctx.Err() == nil {
		t.Error("nothing was borrowed")
	}
	if err := s.db.Put([]byte("new"), []byte("x"), nil); err != nil {
		t.Error(err)
	}
}

// While compaction is paused nobody waits for the room that it has borrowed.
func TestPauseGivesRoomBack(t *testing.T) {
	s := newSmallStore(t)
	s.fill()
	s.thin(func(n int) bool { return n%2 > 0 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.db.Compact(ctx, func(CompactProgress) {
		if s.db.compactor.running != nil {
			cancel()
		}
	})
	if !s.db.compactor.room.lent {
		t.Fatal("nothing is lent")
	}
	resume := s.db.PauseCompaction()
	defer resume()
	if err := s.db.Put([]byte("new"), []byte("x"), nil); err != nil {
		t.Error(err)
	}
}
