package db

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Collections that are of no use become rare, also after a snapshot was made to
// expire: only the next one is due at once. The snapshot gave out a slice, so
// that no collection helps.
func TestCollectionsBecomeRare(t *testing.T) {
	forced := 0
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1, Collect: func() { forced++; runtime.GC() }})
	mustPut(t, db, "k", "old")
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range s.All() {
	}
	mustPut(t, db, "k", "new")
	compactAll(t, db)
	db.pinned.every = collectSeldom
	for range 20 {
		db.reclaim()
	}
	if p := db.Stats().Pinned; p.Revoked != 1 || forced != 2 {
		t.Errorf("%d collections forced, %+v", forced, p)
	}
}

// That goes too for those of which somebody waits for what they give back: one that
// gives back something makes the next one come soon, one in vain does not. Method: no
// collection comes by itself.
func TestCollectionsInVain(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	db := openImpatient(t, t.TempDir(), Options{})
	never := func() bool { return false }
	mustPut(t, db, "k", "old")
	compactAll(t, db)
	db.collectUntil(never)
	if db.pinned.every != collectEvery || len(db.pinned.held()) > 0 {
		t.Errorf("the next one comes after %v, though it was of use: %+v", db.pinned.every, db.Stats().Pinned)
	}
	db.pinned.every, db.pinned.last = collectSeldom, time.Time{}
	db.collectUntil(never)
	if n := db.Stats().Pinned.Collections; n != 2 || db.pinned.every != collectSeldom {
		t.Errorf("%d collections, the next one comes after %v", n, db.pinned.every)
	}
}

// When puts are refused and collections have become rare, a holder that lets go
// is noticed the next time that removed files are looked after.
func TestPutsGoOnAfterClose(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{MaxPinned: -1})
	mustPut(t, db, "k", "old")
	v := mustValue(t, db, "k")
	mustPut(t, db, "k", "new")
	compactAll(t, db)
	reclaimUntil(t, db, "puts are refused", func(Pinned) bool { return db.pinnedError() != nil })
	db.pinned.every = collectSeldom
	v.Close()
	db.reclaim()
	if err := db.pinnedError(); err != nil {
		t.Error(err)
	}
}

// Once all that readers hold is in memory, no more collections are forced in a
// store where nothing else happens. When the last one lets go, that is noticed.
func TestIdleStoreForcesNoCollections(t *testing.T) {
	disk, forced := newDisk(), 0
	db := open(t, "", &Options{FS: disk, SegmentSize: 64 << 10, Collect: func() { forced++; runtime.GC() }})
	db.pinned.floor, db.pinned.patience, db.pinned.every = 100, 0, 0
	mustPut(t, db, "k", string(randomBytes(8000)))
	v := mustValue(t, db, "k")
	mustPut(t, db, "k", "new")
	compactAll(t, db)
	for range 10 {
		disk.Advance(2 * reclaimEvery)
	}
	if s := db.Stats().Pinned; s.Bytes > 0 || s.Moved < 8000 || forced != 1 {
		t.Errorf("%d collections forced, %+v", forced, s)
	}
	v.Close()
	runtime.GC()
	if s := db.Stats().Pinned; s.Segments > 0 || s.Moved > 0 {
		t.Errorf("with nobody there: %+v", s)
	}
	disk.Advance(2 * reclaimEvery)
	if db.compactor.reclaims.Load() {
		t.Error("the timer goes on")
	}
}

// What is forced by a put that runs out of mappings is code of the user: a fault
// in it is not taken for one of the store's.
func TestCollectRunsUnguarded(t *testing.T) {
	refuse, guarded, forced := "none", false, 0
	db := openFewMaps(t, &refuse, Options{Collect: func() {
		guarded = debug.SetPanicOnFault(false)
		refuse, forced = "none", forced+1
	}})
	mustPut(t, db, "k", "v")
	refuse = ".seg"
	db.write.Lock()
	err := func() (err error) {
		defer vfs.EndGuard(vfs.BeginGuard(), &err)
		return db.rotate(0)
	}()
	db.write.Unlock()
	if err != nil || forced != 1 || guarded {
		t.Errorf("forced %d times, guarded: %v, %v", forced, guarded, err)
	}
}

// A store that follows another forgets the removed segments that are gone.
func TestFollowerForgetsRemovedSegments(t *testing.T) {
	const rounds = 20
	dir := t.TempDir()
	db := openImpatient(t, dir, Options{})
	mustPut(t, db, "k", "v")
	f := open(t, dir, &Options{ReadOnly: true})
	for range rounds {
		mustPut(t, db, "k", "v")
		compactAll(t, db)
		if err := f.Refresh(); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
	}
	f.pinned.mu.Lock()
	defer f.pinned.mu.Unlock()
	if n := len(f.pinned.list); n > rounds/2 {
		t.Errorf("%d segments after %d compactions", n, rounds)
	}
}
