package db

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// followEvery is how often a read-only store looks for news of the writer.
const followEvery = 100 * time.Millisecond

// follower is the half of a read-only store that keeps it up to date with a
// writer in another process. It writes nothing. Tombstones stay in its index:
// without them a put that compaction copies to another file could not be told
// from one that was deleted since.
type follower struct {
	mu       lockorder.Mutex[lockorder.Follower]
	manifest *manifest.List
	applied  map[segment.ID]int64  // up to where each segment's records are in the index
	ended    atomic.Pointer[error] // why following can't go on; Health does not wait for mu
	begun    bool                  // the index is not empty, or has readers
	stop     func() bool
}

// errRewound ends following. While there was no writer the store showed the end
// of a segment as a writer would recover it. The next writer usually does so, by
// a copy, but the one that failed to write it may have come to its senses.
var errRewound = errors.New("the writer has taken back what it failed to write, open the store anew")

// followAttempts bounds how often a manifest may be replaced under our eyes.
const followAttempts = 100

func (db *DB) openFollower() error {
	db.follow.manifest = &manifest.List{}
	db.follow.mu.Lock()
	defer db.follow.mu.Unlock()
	if err := db.refresh(); err != nil {
		return err
	}
	db.follow.begun = true
	db.follow.stop = db.fs.AfterFunc(followEvery, db.followTimer)
	return nil
}

func (db *DB) closeFollower() error {
	db.follow.mu.Lock()
	defer db.follow.mu.Unlock()
	if db.closed() {
		return nil
	}
	db.follow.stop()
	db.index.Close()
	return db.letFilesGo()
}

func (db *DB) followTimer() {
	db.follow.mu.Lock()
	defer db.follow.mu.Unlock()
	if db.closed() {
		return
	}
	db.refresh() // what fails now fails again, and Refresh returns it
	db.follow.stop = db.fs.AfterFunc(followEvery, db.followTimer)
}

// Refresh brings a read-only store up to what the writer has said to be durable:
// all but the last group of commits at once, and that one too as soon as the
// writer has written another group or, if it does not, 50 ms later. It also
// happens by itself ten times a second. On other stores it does nothing.
func (db *DB) Refresh() error {
	if !db.opts.ReadOnly {
		return nil
	}
	db.follow.mu.Lock()
	defer db.follow.mu.Unlock()
	if db.closed() {
		return ErrClosed
	}
	return db.refresh()
}

// refresh follows the manifest until it has read everything one names. A file
// may vanish meanwhile if, and only if, there is a newer manifest.
func (db *DB) refresh() (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	if ended := db.follow.ended.Load(); ended != nil {
		return *ended
	}
	for range followAttempts {
		alive, err := db.fs.Locked(segment.LockName)
		if err != nil {
			return err
		}
		names, err := db.fs.List()
		if err != nil {
			return err
		}
		m, err := manifest.Read(db.fs, names)
		if err == nil && m != nil && !alive && m.Generation != db.follow.manifest.Generation {
			err = db.checkStrays(m, segment.Files(names))
		}
		switch {
		case err != nil:
		case m == nil:
			err = db.checkNew(names)
		default:
			err = db.followManifest(m, alive)
		}
		if err == nil || !db.superseded(names) {
			return err
		}
	}
	return errors.New("the manifest changes faster than it can be read")
}

// superseded reports whether there is a manifest newer than all in names.
func (db *DB) superseded(names []string) bool {
	now, err := db.fs.List()
	if err != nil {
		return false
	}
	before, _ := manifest.LatestGeneration(names)
	after, ok := manifest.LatestGeneration(now)
	return ok && after > before
}

// followManifest applies what is new: first everything is read and verified,
// then readers get the new segments, then the index entries, without those that
// still name a segment that left the manifest, and at last these segments go.
func (db *DB) followManifest(m *manifest.List, alive bool) error {
	n := &news{db: db, m: m, alive: alive, applied: make(map[segment.ID]int64)}
	if err := n.read(); err != nil {
		return err
	}
	if err := n.publish(); err != nil {
		return err
	}
	if err := n.checkShown(); err != nil {
		db.follow.ended.Store(&err)
		return err
	}
	n.drop()
	db.follow.manifest, db.follow.applied = m, n.applied
	return nil
}

// news is what a follower finds in one look at the directory.
type news struct {
	db      *DB
	m       *manifest.List
	alive   bool // is there a writer?
	changes []index.Change
	shown   []index.Change // shown, but no longer where they were
	applied map[segment.ID]int64
	visible uint64 // what hints have told of
}

// read opens segments that are new and collects the records that are. Readers
// see nothing of it yet.
func (n *news) read() error {
	var sealed, rest []sealedSegment
	for i := range n.m.Segments {
		e := &n.m.Segments[i]
		seg, err := n.open(e)
		if err != nil {
			return err
		}
		if e.Active || n.db.follow.begun {
			rest = append(rest, sealedSegment{seg, e})
		} else {
			sealed = append(sealed, sealedSegment{seg, e})
		}
	}
	for _, s := range append(n.readHints(sealed), rest...) {
		if err := n.readSegment(s.Segment, s.entry); err != nil {
			return err
		}
	}
	return nil
}

// readHints spares the first look the reading of segments with hints, and
// returns those without. Later looks have to do without hints: readers are
// there, who must not see half the news.
func (n *news) readHints(list []sealedSegment) (rest []sealedSegment) {
	n.db.follow.begun = true
	rest = n.db.loadHints(list)
	for _, s := range list {
		if !slices.Contains(rest, s) {
			n.applied[s.entry.ID] = s.entry.Length
			n.visible = max(n.visible, s.entry.Tally.MaxSeq)
		}
	}
	return rest
}

// noteTakenBack remembers records that were shown although the manifest now
// ends their segment before them.
func (n *news) noteTakenBack(seg *segment.Segment, from, to int64) {
	for r, err := range seg.Records(from, to) {
		if err == nil && r.Kind != segment.KindWatermark {
			n.shown = append(n.shown, n.db.change(seg, &r))
		}
	}
}

// checkShown makes sure, after the news was published, that what was taken back
// in one place has been replaced by its copy or by something newer. If not, the
// version it once replaced is gone from the index.
func (n *news) checkShown() error {
	for _, c := range n.shown {
		hit, err := n.db.index.Lookup(c.Key)
		replaced := err == nil && hit.Ref() != c.Ref
		deleted := err == index.ErrAbsent && (c.Kind != segment.KindDelete || n.brings(c.Seq))
		if !replaced && !deleted {
			return errRewound
		}
	}
	return nil
}

func (n *news) brings(seq uint64) bool {
	return slices.ContainsFunc(n.changes, func(c index.Change) bool { return c.Seq == seq })
}

func (n *news) open(e *manifest.Entry) (*segment.Segment, error) {
	if seg := n.db.index.Segments().Find(e.ID); seg != nil {
		return seg, nil
	}
	seg, err := n.db.openNamed(n.m, e, e.Length, e.Capacity)
	if err != nil {
		return nil, err
	}
	return seg, n.db.attach(seg)
}

func (n *news) readSegment(seg *segment.Segment, e *manifest.Entry) error {
	from, end := n.db.follow.applied[e.ID], e.Length
	if from == 0 {
		from = segment.HeaderSize
	}
	if from > end && !e.Active {
		n.noteTakenBack(seg, end, from)
		from = end
	}
	if e.Active {
		var err error
		if end, err = n.durableEnd(seg, e, from); err != nil {
			return err
		}
	}
	if end = max(end, from); end > seg.Len() {
		if err := seg.Grow(end); err != nil {
			return err
		}
	}
	changes, tally, err := n.db.readRecords(seg, from, end)
	if err == nil && from == segment.HeaderSize && !e.Active && tally != e.Tally {
		err = wrongTally(seg, tally, e.Tally)
	}
	n.changes = append(n.changes, changes...)
	n.applied[e.ID] = end
	return err
}

// durableEnd is how far the active segment may be shown: beside a living
// writer only what is known to be synced, without one every complete batch,
// as the next writer will do.
func (n *news) durableEnd(seg *segment.Segment, e *manifest.Entry, from int64) (int64, error) {
	tail, err := seg.FollowTail(from)
	if err != nil {
		return 0, err
	}
	if tail.Newer != nil { // sabotage: newer-record
		return 0, newerRecord(seg, tail)
	}
	proven := max(tail.Proven, e.Length)
	if tail.Valid < proven {
		return 0, unverified(seg, tail.Valid, proven)
	}
	// A writer may have begun after the first look. This one comes after the
	// manifest was read: without a writer now, that one's is in it.
	alive, err := n.db.fs.Locked(segment.LockName)
	if err != nil {
		return 0, err
	}
	if n.alive || alive {
		return proven, nil // sabotage: follow-proven
	}
	return tail.Valid, nil
}

// publish lets readers see the news, all at once. An entry that still names a
// segment that left the manifest was deleted, and its tombstone compacted away,
// since the last look.
func (n *news) publish() error {
	visible := max(n.visible, n.db.index.Visible())
	for _, c := range n.changes {
		visible = max(visible, c.Seq)
	}
	dead, err := n.db.index.Merge(n.changes, visible, n.left()...)
	if err != nil {
		return err
	}
	n.db.bury(dead)
	return nil
}

// left are the segments that left the manifest.
func (n *news) left() (gone []segment.ID) {
	for seg := range n.db.index.Segments().All() {
		if n.m.Entry(seg.ID()) == nil {
			gone = append(gone, seg.ID())
		}
	}
	return gone
}

// drop lets go of the segments that left the manifest. No entry names them.
func (n *news) drop() {
	if left := n.left(); len(left) > 0 {
		n.db.pinned.add(n.db.index.Detach(left...))
	}
}

func (db *DB) currentManifest() *manifest.List {
	if !db.opts.ReadOnly {
		return db.manifests.Current()
	}
	db.follow.mu.Lock()
	defer db.follow.mu.Unlock()
	return db.follow.manifest
}
