package db

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"weak"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// A removed segment has no name any more, but takes space as long as anybody
// reads it, and until a collection finds out that nobody does. When that is
// more than a part of the store, what reclaim does gets worse step by step:
//
//  1. it forces a collection
//  2. what survives it for long is moved to memory
//  3. when that is full, snapshots are made to expire, the oldest first
//  4. when there are none, puts fail
//
// No reader ever sees other bytes. Blobs go the way of the segments that held
// them: see retired.

const (
	pinnedFloor    = 64 << 20 // bytes that may always be pinned on disk
	pinnedShare    = 20       // or the store's size by this
	pinnedPatience = 30 * time.Second
	hastyPatience  = time.Second // when the disk is nearly full

	collectEvery  = time.Second // at most, and less and less if it does not help
	collectSeldom = time.Minute
)

// pinned knows the segments that left the store and may still be held.
type pinned struct {
	mu      lockorder.Mutex[lockorder.Pinned]
	list    []*retired // oldest first
	stuck   bool       // nothing more can be done
	revoked uint64

	released bool // blobs that are still on disk; only reclaim looks at it

	floor    int64
	patience time.Duration

	// Of forced collections.
	collections uint64
	last        time.Time
	every       time.Duration
}

// retired is a segment that left the store.
type retired struct {
	segment weak.Pointer[segment.Segment]
	since   time.Time
	size    int64
	moved   bool      // to memory
	failed  time.Time // when not all of it could be moved; only reclaim looks at it
}

func (p *pinned) begin() { p.floor, p.patience, p.every = pinnedFloor, pinnedPatience, collectEvery }

// add notes segments that left the index.
func (p *pinned) add(list []*segment.Segment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune()
	for _, seg := range list {
		p.list = append(p.list, &retired{segment: weak.Make(seg), since: time.Now(), size: seg.Len()})
	}
}

// held returns those that are still there. The caller does not keep the
// segments for long.
func (p *pinned) held() []*retired {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune()
	return slices.Clone(p.list)
}

// prune forgets those that are gone. The caller holds mu.
func (p *pinned) prune() {
	p.list = slices.DeleteFunc(p.list, func(r *retired) bool { return r.segment.Value() == nil })
}

// usage adds up what is pinned, on disk and in memory. A blob counts once.
func (p *pinned) usage(list []*retired, live *index.Segments) (disk, memory int64) {
	seen := make(map[segment.ID]bool)
	for _, r := range list {
		if p.isMoved(r) {
			memory += r.size
		} else {
			disk += r.size
		}
		for _, b := range r.blobs(live) {
			if seen[b.ID()] {
				continue
			}
			seen[b.ID()] = true
			moved := b.Moved()
			memory += moved
			if moved == 0 {
				disk += int64(b.Extent().Length)
			}
		}
	}
	return disk, memory
}

func (p *pinned) isMoved(r *retired) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.moved
}

// blobs are those that only segments outside the store hold.
func (r *retired) blobs(live *index.Segments) (list []*segment.Blob) {
	seg := r.segment.Value()
	if seg == nil {
		return nil
	}
	return slices.DeleteFunc(seg.Blobs(), func(b *segment.Blob) bool { return holdsBlob(live, b) })
}

// holdsBlob reports whether one of the segments holds a blob. A closed store has
// no segments.
func holdsBlob(live *index.Segments, b *segment.Blob) bool {
	if live == nil {
		return false
	}
	for seg := range live.All() {
		if seg.Blob(b.ID()) != nil {
			return true
		}
	}
	return false
}

// pinnedLimit is how much may be pinned on disk before anything is done: nothing
// if the disk is nearly full.
func (db *DB) pinnedLimit(live *index.Segments) int64 {
	if db.scarce() {
		return 0
	}
	var store int64
	for seg := range live.All() {
		store += seg.Len()
	}
	return max(db.pinned.floor, store/pinnedShare)
}

// reclaim looks after the segments that left the store. It is called now and
// then, from one goroutine at a time.
func (db *DB) reclaim() {
	live := db.index.Segments()
	if live == nil {
		return
	}
	limit := db.pinnedLimit(live)
	disk, memory := db.pinned.usage(db.pinned.held(), live)
	if disk > limit || db.pinned.released { // what is in memory can wait for a collection that comes by itself
		db.forgetBlobs(live)
		forced := db.collect(func() bool {
			d, m := db.pinned.usage(db.pinned.held(), live)
			return d+m < disk+memory
		})
		db.pinned.released = db.pinned.released && !forced
	}
	done := db.moveOld(live, limit)
	if !done && db.revokeOldest() {
		done = true // for now: the next collection tells
	}
	db.pinned.mu.Lock()
	defer db.pinned.mu.Unlock()
	db.pinned.stuck = !done
}

// forgetBlobs closes the blobs of removed segments that are open for nobody.
func (db *DB) forgetBlobs(live *index.Segments) {
	for _, r := range db.pinned.held() {
		for _, b := range r.blobs(live) {
			db.blobs.cache.Forget(b.ID())
		}
	}
}

// collect forces a collection, unless there was one a moment ago, and reports
// whether it did. freed tells whether it was of use; if not, the next one has
// to wait longer.
func (db *DB) collect(freed func() bool) bool {
	if !db.pinned.due() {
		return false
	}
	db.forceCollection()
	useful := freed()
	db.pinned.mu.Lock()
	defer db.pinned.mu.Unlock()
	if db.pinned.every = min(2*db.pinned.every, collectSeldom); useful {
		db.pinned.every = collectEvery
	}
	return true
}

// forceCollection calls what may be code of the user, for which a fault is none
// of the store's even if the caller is guarded.
func (db *DB) forceCollection() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(false))
	db.opts.Collect()
}

// closeHandle takes a handle off the list. If puts are refused what it held is
// to be found gone at once.
func (db *DB) closeHandle(n *handle) {
	db.handles.close(n)
	db.pinned.mu.Lock()
	defer db.pinned.mu.Unlock()
	if db.pinned.stuck {
		db.pinned.last = time.Time{}
	}
}

// due reports whether a collection may be forced, and takes it for done.
func (p *pinned) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < p.every {
		return false
	}
	p.last = time.Now()
	p.collections++
	return true
}

// moveOld moves segments that have survived for long to memory, the oldest
// first, until no more than limit is left on disk. It reports false if some
// should be moved and can't.
func (db *DB) moveOld(live *index.Segments, limit int64) bool {
	all, patience := db.pinned.held(), db.patience()
	old := slices.DeleteFunc(slices.Clone(all), func(r *retired) bool { return time.Since(r.since) < patience })
	for _, r := range old {
		db.letGo(r, live)
	}
	for _, r := range old {
		if disk, _ := db.pinned.usage(all, live); disk <= limit {
			return true
		}
		n := r.onDisk(live, db.pinned.isMoved(r))
		_, memory := db.pinned.usage(all, live)
		if n == 0 || time.Since(r.failed) < patience || memory+n > db.opts.MaxPinned {
			continue // a smaller one may fit
		}
		if db.move(r, live) != nil {
			r.failed = time.Now()
		}
	}
	disk, _ := db.pinned.usage(all, live)
	left, _ := db.pinned.usage(old, live)
	return disk <= limit || left == 0
}

// onDisk is what a segment takes on disk with its blobs.
func (r *retired) onDisk(live *index.Segments, moved bool) (n int64) {
	if !moved {
		n = r.size
	}
	for _, b := range r.blobs(live) {
		if b.Moved() == 0 {
			n += int64(b.Extent().Length)
		}
	}
	return n
}

// letGo has a segment let go of the blobs that nobody has open and no snapshot
// may still be asked for. Their files are removed by their cleanups, after the
// next collection.
func (db *DB) letGo(r *retired, live *index.Segments) {
	seg := r.segment.Value()
	if seg == nil || slices.ContainsFunc(db.handles.all(), func(n *handle) bool { return n.mayRead(seg) }) {
		return
	}
	for _, b := range r.blobs(live) {
		if !b.InUse() {
			seg.Release(b)
			db.pinned.released = db.pinned.released || b.Moved() == 0
		}
	}
}

// move moves a segment and its blobs to memory and has their files go. What
// can't be moved does not keep the others.
func (db *DB) move(r *retired, live *index.Segments) error {
	seg := r.segment.Value()
	if seg == nil {
		return nil
	}
	err := seg.Migrate()
	if err == nil {
		db.pinned.mu.Lock()
		r.moved = true
		db.pinned.mu.Unlock()
	}
	for _, b := range r.blobs(live) {
		err = errors.Join(err, db.moveBlob(b))
	}
	return err
}

func (db *DB) moveBlob(b *segment.Blob) error {
	if b.Moved() > 0 {
		return nil
	}
	if err := b.Migrate(); err != nil {
		return err
	}
	db.blobs.remove(b.ID())
	return nil
}

// patience is how long a reader may keep a removed segment on disk.
func (db *DB) patience() time.Duration {
	free, err := db.fs.Free()
	if err == nil && free < 4*db.opts.SegmentSize {
		return min(hastyPatience, db.pinned.patience)
	}
	return db.pinned.patience
}

// revokeOldest makes the oldest snapshot expire that may still be asked for
// what was removed, and reports whether there was one.
func (db *DB) revokeOldest() bool {
	for _, n := range db.handles.all() {
		hold, ok := n.holds.(*snapshotHold)
		if !ok || !slices.ContainsFunc(db.pinned.held(), func(r *retired) bool { return r.readBy(hold) }) {
			continue
		}
		if hold.revoke() {
			db.pinned.mu.Lock()
			defer db.pinned.mu.Unlock()
			db.pinned.revoked++
			db.pinned.last = time.Time{} // the next collection will be of use
			return true
		}
	}
	return false
}

func (r *retired) readBy(hold *snapshotHold) bool {
	seg := r.segment.Value()
	return seg != nil && hold.reads(seg)
}

// pinnedError is why nothing may be put: readers hold more of what was removed
// than there may be, and nothing more can be done about it.
func (db *DB) pinnedError() error {
	db.pinned.mu.Lock()
	stuck := db.pinned.stuck
	db.pinned.mu.Unlock()
	if !stuck {
		return nil
	}
	live := db.index.Segments()
	if disk, _ := db.pinned.usage(db.pinned.held(), live); disk <= db.pinnedLimit(live) {
		return nil
	}
	return db.pinnedBy()
}

// pinnedBy is ErrPinnedSpace with the holders.
func (db *DB) pinnedBy() error {
	const most = 3
	var names []string
	list := db.pinned.held()
	for _, n := range db.handles.all() {
		if slices.ContainsFunc(list, func(r *retired) bool { return r.heldBy(n) }) {
			names = append(names, n.describe().String())
		}
	}
	switch {
	case len(names) == 0:
		return fmt.Errorf("%w: %d segments, by reads that have not come to their end", ErrPinnedSpace, len(list))
	case len(names) > most:
		names = append(names[:most:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return fmt.Errorf("%w: %s", ErrPinnedSpace, strings.Join(names, "; "))
}

func (r *retired) heldBy(n *handle) bool {
	seg := r.segment.Value()
	return seg != nil && n.holds.holds(seg)
}

// collecting does what fails when slots or mappings have run out, and does it
// again while a forced collection gives some back.
func (db *DB) collecting(do func() error) error {
	err := do()
	if outOfPlaces(err) {
		db.collectUntil(func() bool { err = do(); return !outOfPlaces(err) })
	}
	if outOfPlaces(err) {
		return fmt.Errorf("%w (%w)", db.pinnedBy(), err)
	}
	return err
}

// collectUntil forces a collection, if one may be, and waits a moment until what
// it gives back is enough: cleanups run soon after it, not in it. It was of use also
// if it gave something back that is not enough.
func (db *DB) collectUntil(enough func() bool) {
	const tries, pause = 20, 5 * time.Millisecond
	before := len(db.pinned.held())
	db.collect(func() bool {
		for range tries {
			if time.Sleep(pause); enough() {
				return true
			}
		}
		return len(db.pinned.held()) < before
	})
}

func outOfPlaces(err error) bool {
	return errors.Is(err, index.ErrNoSlots) || errors.Is(err, vfs.ErrNoMaps)
}

func (p *pinned) stats(live *index.Segments) Pinned {
	list := p.held()
	s := Pinned{Segments: len(list)}
	s.Bytes, s.Moved = p.usage(list, live)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Collections, s.Revoked = p.collections, p.revoked
	return s
}
