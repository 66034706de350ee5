package db

import (
	"fmt"
	"slices"
	"time"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// A write takes this road, in this order:
//
//	Put, Delete, Apply      checksums, on the caller's goroutine
//	queue                   whoever finds no leader leads; the others wait
//	stage                   sequence numbers and durableTo, in queue order
//	write, datasync         once for the whole group
//	index.Publish           readers see it
//	acknowledge             wake the group, hand the lead on
//
// Nothing is published before it is as durable as promised, and nothing is
// acknowledged before it is published.

// commit is one caller in the queue.
type commit struct {
	ops        []op
	conditions []condition
	size       int64 // upper bound of the bytes in the segment
	sync       bool
	wake       chan bool // true: lead; false: done

	// Set by the leader, read once woken.
	refused   bool // its conditions don't hold, if all before it in the group succeeds
	written   bool // records may have reached the disk
	published bool
	err       error
}

type commitQueue struct {
	mu      lockorder.Mutex[lockorder.Queue]
	waiting []*commit
	led     bool
}

const (
	maxGroupBytes = maxBatchBytes
	watermarkIdle = 50 * time.Millisecond
)

// commit brings the operations of one caller into the store.
func (db *DB) commit(c *commit, mode SyncMode) error {
	if err := db.prepare(c, mode); err != nil || len(c.ops)+len(c.conditions) == 0 {
		return err
	}
	if !db.queue.join(c) && !<-c.wake {
		return c.err
	}
	db.lead()
	return c.err
}

// lead commits a group. Before the first write of a run the small segments of
// earlier ones are merged.
func (db *DB) lead() {
	group := db.queue.take()
	defer db.queue.handOver(group)
	if db.commitGroup(group) == errFoldFirst {
		db.fold()
		db.commitGroup(group)
	}
}

// prepare refuses what can't be stored.
func (db *DB) prepare(c *commit, mode SyncMode) error {
	if db.opts.ReadOnly {
		return ErrReadOnly
	}
	if mode == SyncDefault {
		mode = db.opts.Sync
	}
	c.sync, c.wake = mode == SyncAlways, make(chan bool, 1)
	for i := range c.ops {
		if c.ops[i].invalid != nil {
			return c.ops[i].invalid
		}
		r := c.ops[i].record
		c.size += segment.MaxRecordSize(len(r.Key), len(r.Meta), r.PutLen())
	}
	if len(c.ops) > maxBatchRecords || c.size > maxBatchBytes {
		return ErrBatchTooLarge
	}
	return nil
}

// join queues a commit and reports whether it has to lead.
func (q *commitQueue) join(c *commit) (lead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, c)
	lead = !q.led
	q.led = true
	return lead
}

// take returns the group of the leader: as many as fit, itself the first.
func (q *commitQueue) take() []*commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, int64(0)
	for n < len(q.waiting) && (n == 0 || size+q.waiting[n].size <= maxGroupBytes) {
		size += q.waiting[n].size
		n++
	}
	group := q.waiting[:n:n]
	q.waiting = append([]*commit(nil), q.waiting[n:]...)
	return group
}

// handOver wakes the followers of a group and makes the first of those who
// queued meanwhile the next leader.
func (q *commitQueue) handOver(group []*commit) {
	for _, c := range group[1:] {
		c.wake <- false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.led = len(q.waiting) > 0
	if q.led {
		q.waiting[0].wake <- true
	}
}

// commitGroup commits a group, in as many parts as it takes segments. If one
// part fails so does all that is not published yet, for it was judged by what
// that part would have done.
func (db *DB) commitGroup(group []*commit) (err error) {
	db.write.Lock()
	defer db.write.Unlock()
	finished := false
	defer func() {
		if !finished { // a panic: nobody knows how far it came
			db.writer.poison = errAborted
			fail(group, errAborted)
		}
	}()
	fault, err := db.commitLocked(group)
	if fault != nil { // a page of an older record can't be read: nobody knows either
		db.writer.poison = fmt.Errorf("%w: %w", errAborted, fault)
		fail(group, db.writer.poison)
	}
	finished = true
	return err
}

// commitLocked gives the deletes of a group that the disk has no room for
// another chance, without the puts. A fault is a *FaultError.
func (db *DB) commitLocked(group []*commit) (fault, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &fault)
	err = db.commitOnce(group)
	if err == errFoldFirst {
		return nil, err
	}
	if lacksSpace(err) && slices.ContainsFunc(group, (*commit).puts) {
		fail(slices.DeleteFunc(slices.Clone(group), (*commit).deletes), err)
		group = slices.DeleteFunc(slices.Clone(group), (*commit).settled)
		err = db.commitOnce(group)
	}
	db.lastWrite.note(group, err, db.fs.Now)
	if err != nil {
		fail(group, err)
		return nil, nil
	}
	for _, c := range group {
		if c.refused {
			c.err = ErrPrecondition
		}
	}
	return nil, nil
}

// commitOnce returns why what is not published of a group can't be.
func (db *DB) commitOnce(group []*commit) error {
	if err := db.writable(); err != nil {
		return err
	}
	sync := slices.ContainsFunc(group, func(c *commit) bool { return c.sync })
	if sync {
		if err := db.checkDirectory(); err != nil {
			return err
		}
	}
	writing := db.judge(group)
	if len(writing) == 0 {
		return db.settle(sync)
	}
	if !db.compactor.folded.Swap(true) {
		return errFoldFirst
	}
	defer db.scheduleTimers()
	for len(writing) > 0 {
		n, err := db.commitPart(writing, sync)
		if err != nil {
			return err
		}
		for _, c := range writing[:n] {
			c.published = true
		}
		writing = writing[n:]
	}
	return nil
}

// settle makes what a group without a record found as durable as a record: that
// a key is not there may be due to an earlier delete, or to a put that failed
// half-way and must not come back.
func (db *DB) settle(sync bool) error {
	if db.writer.broken {
		return db.rotate(0)
	}
	if sync {
		return db.syncActive()
	}
	return nil
}

func fail(group []*commit, err error) {
	for _, c := range group {
		if !c.settled() {
			c.err = writeError(err)
		}
	}
}

// settled reports whether it is known what becomes of a commit.
func (c *commit) settled() bool { return c.published || c.err != nil }

// writable tells why there can be no writes.
func (db *DB) writable() error {
	switch {
	case db.closed():
		return ErrClosed
	case db.writer.poison != nil:
		return fmt.Errorf("writing has stopped, reopen the store: %w", db.writer.poison)
	}
	return nil
}

// judge decides, in queue order, what each commit finds: the versions before it
// in the group, and those in the index. It gives out sequence numbers, which
// count as used once they are staged, and returns the commits that have anything
// to write. A commit fails if the disk can't read a record that it would replace.
func (db *DB) judge(group []*commit) (writing []*commit) {
	for {
		writing, fault := db.judgeAll(group)
		if fault == nil {
			return writing
		}
	}
}

// judgeAll leaves those out that have failed already. If another one does, by a
// fault, it has to be called again.
func (db *DB) judgeAll(group []*commit) (writing []*commit, fault error) {
	var c *commit
	defer func() {
		if fault != nil {
			c.err = fault
		}
	}()
	defer vfs.EndGuard(vfs.BeginGuard(), &fault)
	overlay := make(map[string]Version) // of the keys of the group; zero if deleted
	seq := db.writer.seq
	for _, c = range group {
		if c.err != nil {
			continue
		}
		if c.refused = !db.holds(c.conditions, overlay); c.refused {
			continue
		}
		before := seq
		for i := range c.ops {
			seq = db.judgeOp(&c.ops[i], overlay, seq)
		}
		if seq > before {
			writing = append(writing, c)
		}
	}
	return writing, nil
}

func (db *DB) holds(conditions []condition, overlay map[string]Version) bool {
	for _, required := range conditions {
		if db.version(required.key, overlay) != required.version {
			return false
		}
	}
	return true
}

// judgeOp returns the last sequence number in use, which is that of the
// operation if it writes a record.
func (db *DB) judgeOp(o *op, overlay map[string]Version, seq uint64) uint64 {
	r := o.record
	o.result = Result{Existed: db.version(r.Key, overlay) != Version{}}
	if o.skip = r.Kind == segment.KindDelete && !o.result.Existed; o.skip {
		return seq
	}
	r.Seq = seq + 1
	if r.Kind != segment.KindDelete {
		o.result.Version = versionOf(r)
	}
	overlay[string(r.Key)] = o.result.Version
	return r.Seq
}

// version is the present version of a key, zero if it has no value. Of a key
// that can't be read only the sequence number is invented, so that it matches
// nothing and counts as there.
func (db *DB) version(key []byte, overlay map[string]Version) Version {
	if v, known := overlay[string(key)]; known {
		return v
	}
	hit, err := db.index.Lookup(key)
	if err == index.ErrAbsent {
		return Version{}
	}
	unreadable := Version{Seq: ^uint64(0)}
	if err != nil {
		return unreadable
	}
	r, err := hit.Segment.Read(hit.Offset)
	if err != nil {
		return unreadable
	}
	return versionOf(&r)
}

// commitPart commits as much of a group as fits the active segment and returns
// how many commits that was.
func (db *DB) commitPart(group []*commit, sync bool) (int, error) {
	n, err := db.prepareGroup(group)
	if err != nil {
		return 0, err
	}
	for _, c := range group[:n] {
		c.written = true
	}
	return n, db.commitStaged(group[:n], sync)
}

// prepareGroup stages as many commits as fit a segment, and has disk blocks for
// them. Deletes for which there are none in the active segment move on to the
// spare one.
func (db *DB) prepareGroup(group []*commit) (n int, err error) {
	if err := db.makeRoom(group); err != nil {
		return 0, err
	}
	n, err = db.stageReserved(group)
	if err != nil && db.writer.spare != nil && !slices.ContainsFunc(group, (*commit).puts) {
		if err := db.rotate(group[0].size); err != nil {
			return 0, err
		}
		n, err = db.stageReserved(group)
	}
	return n, err
}

// makeRoom makes sure that there is an active segment with room for the first
// commit, and some for the watermark behind.
func (db *DB) makeRoom(group []*commit) error {
	if size := group[0].size; db.writer.active == nil || db.writer.broken || !db.fits(size) {
		if err := db.rotate(size); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(group, (*commit).puts) {
		return db.prepareNext(group)
	}
	return nil
}

func (db *DB) stageReserved(group []*commit) (int, error) {
	n := db.stage(group)
	if err := db.reserve(group[:n]); err != nil {
		db.writer.active.Discard()
		db.writer.staged = db.writer.staged[:0]
		return 0, err
	}
	return n, nil
}

func (db *DB) fits(size int64) bool { return db.writer.active.Fits(size + segment.WatermarkSize) }

// stage appends the records of as many commits as fit the segment, at least
// one, and returns their number.
func (db *DB) stage(group []*commit) int {
	for i, c := range group {
		if !db.fits(c.size) {
			return i
		}
		db.stageBatch(c)
	}
	return len(group)
}

// stageBatch appends the records of one commit, as one batch.
func (db *DB) stageBatch(c *commit) {
	left := 0
	for i := range c.ops {
		if !c.ops[i].skip {
			left++
		}
	}
	first := segment.FlagFirst
	for i := range c.ops {
		o := &c.ops[i]
		if o.skip {
			continue
		}
		left--
		r := o.record
		r.Flags = r.Flags&^segment.FlagFirst | first
		r.Left, first = uint16(left), 0
		db.writer.seq = r.Seq
		db.writer.active.Append(r)
		db.writer.staged = append(db.writer.staged, db.change(db.writer.active.Segment(), r))
	}
}

func (db *DB) change(seg *segment.Segment, r *segment.Record) index.Change {
	return index.Change{
		Key: r.Key, Ref: seg.Ref(r.Offset), Seq: r.Seq, Kind: r.Kind, Size: r.End - r.Offset,
	}
}

// commitStaged writes, syncs and publishes what was staged.
func (db *DB) commitStaged(group []*commit, sync bool) error {
	defer func() {
		clear(db.writer.staged)
		db.writer.staged = db.writer.staged[:0]
	}()
	if err := db.writer.active.Write(); err != nil {
		db.writer.broken = true
		return err
	}
	if sync { // sabotage: sync-group
		if err := db.syncActive(); err != nil { // sabotage: publish-after-sync
			return err
		}
	}
	if err := db.holdBlobs(group); err != nil {
		return err
	}
	db.publish()
	db.counters.commits.Add(uint64(len(group)))
	db.counters.records.Add(uint64(len(db.writer.staged)))
	return nil
}

// holdBlobs makes the active segment hold the blobs of a group.
func (db *DB) holdBlobs(group []*commit) error {
	seg := db.writer.active.Segment()
	for _, c := range group {
		for i := range c.ops {
			r := c.ops[i].record
			if err := db.blobs.hold(seg, r, seg.Store()); err != nil {
				return err
			}
			db.blobs.count(r, 1)
		}
	}
	return nil
}

// syncActive makes everything written durable. A failure is final: the kernel
// has dropped the error with the pages, and another try would succeed without
// the bytes.
func (db *DB) syncActive() error {
	if db.writer.active == nil {
		return nil
	}
	seg := db.writer.active.Segment()
	if seg.Synced() == seg.Len() {
		return nil
	}
	if err := db.writer.active.Sync(); err != nil {
		db.writer.poison = err // sabotage: poison-after-sync
		return err
	}
	db.counters.syncs.Add(1)
	return nil
}

// Sync makes all acknowledged writes durable, whatever mode they were made in.
func (db *DB) Sync() error {
	db.write.Lock()
	defer db.write.Unlock()
	if err := db.writable(); err != nil {
		return writeError(err)
	}
	if err := db.checkDirectory(); err != nil {
		return err
	}
	defer db.scheduleTimers()
	return writeError(db.syncActive())
}

// checkDirectory stops writing if the directory was removed: what is written to
// its files is lost with the last descriptor. A write that is synced checks
// before; one that is not is followed by watermarkTimer, which does.
func (db *DB) checkDirectory() error {
	err := db.fs.Exists()
	if err != nil {
		db.writer.poison = err
	}
	return err
}
