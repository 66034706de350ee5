package db

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
)

// The compactor is what goes on in the background of a store that is written
// to: it gives space back, and then writes the hints that are missing. It works
// in steps from a timer that a commit sets and that sets itself while there is
// more to do, so an idle store has none. A step copies no more than compactStep
// bytes, or writes one hint; between two steps anybody else may have a turn.
type compactor struct {
	scheduled atomic.Bool // the timer is set
	folded    atomic.Bool // the small segments of earlier runs were merged
	reclaims  atomic.Bool // the timer of reclaim is set
	room      room

	mu       lockorder.Mutex[lockorder.Compaction] // held for a step
	running  *compaction
	closed   bool
	paused   int
	owed     int        // so many hints come before the next compaction, if they are missing
	since    segment.ID // what has this number or a higher one was written since Open
	failures int        // in a row
	lack     lack
	short    bool                 // there was no room for some of what should be compacted
	suspect  map[segment.ID]error // damaged: they stay as they are

	brief lockorder.Mutex[lockorder.Activity] // guards what follows, apart from mu, which a step may hold for long
	stats CompactionStats
	stop  func() bool // stops the timer
	leave func() bool // and that of reclaim
}

const (
	compactEvery    = 100 * time.Millisecond // after a commit
	compactStep     = 256 << 10              // bytes read
	compactRetry    = time.Second            // after a failure, doubled by each further one
	compactRetryMax = 64 * time.Second

	hintsBetween = 8 // so many more hints than it has outputs follow a compaction
	hintShare    = 4 // a hint of what is in memory takes one part in so many, and one, of the time

	reclaimEvery = time.Second
)

// CompactionStats is what compaction does, since Open unless said otherwise.
type CompactionStats struct {
	Compactions  int
	Segments     int   // that were replaced
	BytesRead    int64 // of them
	BytesWritten int64 // copied from them
	BytesFreed   int64 // the difference, and blobs that nobody names any more
	Backlog      int64 // bytes beyond the space target now

	Target float64 // Options.SpaceTarget
	Rate   int64   // Options.CompactionRate

	// Reclaimable is about how many bytes Compact would give back now. It and
	// StuckTombstones are all that a read-only store knows.
	Reclaimable int64

	// StuckTombstones is bytes of deletes that have to stay for now, because
	// another segment has older records: of the same keys, for all that is known.
	StuckTombstones int64

	// Suspect segments are damaged, or have an older version of a value that is
	// damaged elsewhere. They are not compacted, so that nothing is lost that
	// repair may still save.
	Suspect []segment.ID
}

// CompactProgress says how far Compact has come.
type CompactProgress struct {
	Done, Total int64 // bytes of segments to go through
	Written     int64 // bytes copied
}

// scheduleCompaction sets the timer, unless it is set.
func (db *DB) scheduleCompaction(after time.Duration) {
	c := &db.compactor
	if c.scheduled.CompareAndSwap(false, true) {
		c.brief.Lock()
		defer c.brief.Unlock()
		c.stop = db.fs.AfterFunc(after, db.compactTimer)
	}
}

// rescheduleCompaction sets the timer, also if a commit has set it meanwhile, which
// did not know how soon the next step is due.
func (db *DB) rescheduleCompaction(after time.Duration) {
	c := &db.compactor
	c.brief.Lock()
	defer c.brief.Unlock()
	if c.scheduled.Swap(true) && !c.stop() {
		return // it has just run out
	}
	c.stop = db.fs.AfterFunc(after, db.compactTimer)
}

// scheduleReclaim sets the timer that looks after removed segments, unless it
// is set. It has a timer of its own, since what it finds depends on collections,
// and when compaction goes on must not.
func (db *DB) scheduleReclaim() {
	c := &db.compactor
	if c.reclaims.CompareAndSwap(false, true) {
		c.brief.Lock()
		defer c.brief.Unlock()
		c.leave = db.fs.AfterFunc(reclaimEvery, db.reclaimTimer)
	}
}

// reclaimTimer goes on as long as a removed segment is still there.
func (db *DB) reclaimTimer() {
	c := &db.compactor
	c.reclaims.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	db.reclaim()
	if len(db.pinned.held()) > 0 {
		db.scheduleReclaim()
	}
}

// compactTimer does a step and decides when the next one is due.
func (db *DB) compactTimer() {
	c := &db.compactor
	c.scheduled.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.paused > 0 {
		return
	}
	if c.running == nil && !db.choose() {
		return
	}
	running := c.running
	began, before := db.fs.Now(), running.read()
	if err := db.goOn(db.compactStep()); err != nil {
		wait := min(compactRetry<<min(c.failures, 10), compactRetryMax)
		if isNoSpace(err) {
			wait = compactRetry
			c.lack.note(running, c.failures)
		}
		db.scheduleCompaction(wait)
		return
	}
	db.rescheduleCompaction(db.pace(running.read()-before) - db.fs.Now().Sub(began))
}

// choose begins the next compaction, or writes a hint instead, and reports
// whether there is a compaction to go on with. The caller holds compactor.mu.
func (db *DB) choose() bool {
	c := &db.compactor
	if db.mayWrite() != nil {
		return false // until the store is opened again
	}
	missing := db.missingHints()
	if c.owed == 0 || len(missing) == 0 || db.manyDead() {
		c.running = db.pick()
	}
	if c.running != nil {
		return true
	}
	db.hintNext(missing)
	if c.short || c.lack.attempts > 0 {
		db.scheduleCompaction(compactRetry) // file systems give space back when they like
	}
	return false
}

// compactStep is small for small segments, so that their compaction has more
// than one step too.
func (db *DB) compactStep() int64 { return min(compactStep, db.opts.SegmentSize/2) }

// pace is how long so many bytes take at the rate allowed.
func (db *DB) pace(bytes int64) time.Duration {
	if db.opts.CompactionRate < 0 {
		return 0
	}
	return time.Duration(float64(bytes) / float64(db.opts.CompactionRate) * float64(time.Second))
}

// goOn does a step of the compaction under way. The caller holds compactor.mu.
func (db *DB) goOn(bytes int64) error {
	c := &db.compactor
	done, err := c.running.step(bytes)
	if err == nil && !done {
		return nil
	}
	if err == nil {
		c.failures = 0
		c.count()
	} else {
		c.failures++
		c.blame(err, c.running)
	}
	c.running.failed = err
	c.running = nil
	return err
}

// abandon ends the compaction under way before its end. The caller holds mu.
func (c *compactor) abandon(why error) {
	c.running.discard()
	c.running.failed = why
	c.running = nil
}

// mayWrite is writable for somebody who does not hold DB.write.
func (db *DB) mayWrite() error {
	db.write.Lock()
	defer db.write.Unlock()
	return db.writable()
}

// count adds a compaction that has come to its end to the figures.
func (c *compactor) count() {
	c.owed = c.running.made + hintsBetween
	c.brief.Lock()
	defer c.brief.Unlock()
	c.stats.Compactions++
	c.stats.Segments += len(c.running.inputs)
	c.stats.BytesRead += c.running.read()
	c.stats.BytesWritten += c.running.written
	c.stats.BytesFreed += c.running.passed - c.running.written + c.running.freed
}

// hintNext writes one of the hints that are missing and has the timer go on.
// What this run has written comes first: it is in memory still.
func (db *DB) hintNext(list []manifest.Entry) {
	if len(list) == 0 {
		return
	}
	c := &db.compactor
	n := slices.IndexFunc(list, func(e manifest.Entry) bool { return e.ID >= c.since })
	if n < 0 {
		c.owed = 0
		db.hint(&list[0])
		db.scheduleCompaction(db.pace(list[0].Length))
		return
	}
	began := db.fs.Now()
	c.owed = max(c.owed-1, 0)
	db.hint(&list[n])
	db.scheduleCompaction(hintShare * db.fs.Now().Sub(began))
}

// hint writes the hint of a sealed segment. The caller holds compactor.mu.
func (db *DB) hint(e *manifest.Entry) {
	seg := db.index.Segments().Find(e.ID)
	if err := db.writeHint(seg, *e); err != nil {
		if path, ok := damagedPath(err); ok && path == seg.Path() {
			db.compactor.suspectOne(seg.ID(), err) // of no consequence otherwise
		}
	}
}

// blame remembers which input of a compaction that failed is damaged or can't be
// read, or has an older version of what is.
func (c *compactor) blame(err error, failed *compaction) {
	path, ok := damagedPath(err)
	for _, in := range failed.inputs {
		if ok && in.Path() == path || in == failed.unclear {
			c.suspectOne(in.ID(), err)
		}
	}
}

// damagedPath is the file that an error is about.
func damagedPath(err error) (path string, ok bool) {
	var damage *CorruptError
	var fault *FaultError
	switch {
	case errors.As(err, &damage):
		return damage.Path, true
	case errors.As(err, &fault):
		return fault.Path, true
	}
	return "", false
}

func (c *compactor) suspectOne(id segment.ID, err error) {
	if c.suspect == nil {
		c.suspect = make(map[segment.ID]error)
	}
	if _, known := c.suspect[id]; known {
		return
	}
	c.suspect[id] = err
	c.brief.Lock()
	defer c.brief.Unlock()
	c.stats.Suspect = append(slices.Clone(c.stats.Suspect), id)
}

// stopCompactor ends what is under way. It waits for a step, not for more.
func (db *DB) stopCompactor() {
	c := &db.compactor
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.running != nil {
		c.abandon(ErrClosed)
	}
	c.brief.Lock()
	defer c.brief.Unlock()
	for _, stop := range []func() bool{c.stop, c.leave} {
		if stop != nil {
			stop()
		}
	}
}

// fold merges small segments of earlier runs. It is a convenience, so an error
// only means that the inputs stay.
func (db *DB) fold() {
	c := &db.compactor
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.running != nil {
		return
	}
	if inputs := db.pickFold(); inputs != nil {
		db.newCompaction(inputs).run()
	}
}

// PauseCompaction keeps the background compaction from going on until resume
// is called. Compact by hand still works.
func (db *DB) PauseCompaction() (resume func()) {
	c := &db.compactor
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused++; c.running != nil && c.running.borrowed {
		c.abandon(errPaused) // puts wait for what it has borrowed
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paused--
		db.scheduleCompaction(compactEvery)
	})
}

// Compact gives back the space that can be given back now, at full speed: every
// segment of which a hundredth or more is dead is copied without that, and the
// hints that are missing then are written. Reads and writes go on meanwhile.
// progress, which may be nil, is called now and then. If ctx ends, what is done
// by then stays done.
func (db *DB) Compact(ctx context.Context, progress func(CompactProgress)) error {
	if db.opts.ReadOnly {
		return ErrReadOnly
	}
	if err := db.sealForCompaction(); err != nil && !isNoSpace(err) {
		return writeError(err)
	}
	defer db.scheduleCompaction(compactEvery)
	job := db.planCompact()
	defer db.leave(job)
	for {
		more, err := db.compactMore(job)
		if progress != nil {
			progress(job.progress)
		}
		if err == nil && more {
			err = ctx.Err()
		}
		if err != nil {
			return writeError(err)
		}
		if !more {
			return db.writeHints(ctx)
		}
	}
}

// leave is for a job that may end before its time. The background goes on with what
// is under way, but not during a pause.
func (db *DB) leave(job *compactJob) {
	c := &db.compactor
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused > 0 && c.running != nil && c.running == job.running && c.running.borrowed {
		c.abandon(errPaused)
	}
}

// writeHints writes all hints that are missing. One that can't be written does
// no harm.
func (db *DB) writeHints(ctx context.Context) error {
	c := &db.compactor
	one := func() (more bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		list := db.missingHints()
		if more = len(list) > 0 && !c.closed; more {
			db.hint(&list[0])
		}
		return more
	}
	for one() {
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// sealForCompaction seals the active segment if there is anything dead in it.
func (db *DB) sealForCompaction() error {
	db.write.Lock()
	defer db.write.Unlock()
	if err := db.writable(); err != nil {
		return err
	}
	w := db.writer.active
	if w == nil || w.Tally().Records == 0 {
		return nil
	}
	usage := db.index.Usage(w.Segment())
	_, dead := db.blobs.bytes(w.Segment())
	if dead == 0 && w.Segment().Len()-segment.HeaderSize == usage.Bytes {
		return nil
	}
	return db.rotate(0)
}

// compactMore does a step of what is under way, or begins the next part of the
// job, and reports whether there is more to do.
func (db *DB) compactMore(job *compactJob) (more bool, err error) {
	c := &db.compactor
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, ErrClosed
	}
	if c.running == nil {
		if more, err := db.beginNext(job); err != nil || !more {
			return false, err
		}
	}
	running := c.running
	passed, written := running.passed, running.written
	db.goOn(db.compactStep()) // beginNext has the error, if it is the job's
	job.progress.Done += running.passed - passed
	job.progress.Written += running.written - written
	return true, nil
}

// beginNext begins the next part of a job, unless there is none or the part before
// has failed, whoever did its last step. What else failed meanwhile, that the
// background had begun, the job does itself.
func (db *DB) beginNext(job *compactJob) (more bool, err error) {
	c := &db.compactor
	if err := job.end(); err != nil {
		return false, err
	}
	if err := db.mayWrite(); err != nil {
		return false, err
	}
	inputs := db.next(job)
	switch {
	case len(inputs) > 0:
		job.running = db.newCompaction(inputs)
		c.running = job.running
		return true, nil
	case c.short:
		return false, syscall.ENOSPC
	}
	return false, nil
}

// compactionStats is the part of Stats about compaction. It waits for no step.
func (db *DB) compactionStats() CompactionStats {
	space := db.measure()
	db.compactor.brief.Lock()
	defer db.compactor.brief.Unlock()
	s := db.compactor.stats
	s.StuckTombstones = space.stuck
	s.Reclaimable = space.reclaimable(s.Suspect)
	if db.opts.ReadOnly {
		return s
	}
	s.Backlog = max(0, space.excess(db.opts.SpaceTarget))
	s.Target, s.Rate = db.opts.SpaceTarget, db.opts.CompactionRate
	return s
}
