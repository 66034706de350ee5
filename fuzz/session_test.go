package fuzz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// storage is what a store lies on: a simulated disk, or a real directory.
type storage interface {
	vfs.FS
	Fail(func(op, name string, n int) error) // as in simdisk
	Advance(time.Duration)
}

// session is a store that is driven by a history, next to the reference that
// knows what it has to contain. Every method that returns an error returns a
// difference between the two.
type session struct {
	disk storage
	opts db.Options
	keys int                    // use so many of keys
	hook func(n int, op string) // for all disks the store comes to lie on

	ref       *reference
	store     *db.DB
	values    []heldValue
	snapshots []takenSnapshot
	outlived  outlived
	follower  follower

	batch      db.Batch              // used again and again
	remembered [len(keys)]db.Version // by key, as of the last conditional write
	versions   map[uint16]db.Version // by value

	at       int // the operation of the history that is being done
	seen     coverage
	segments map[segment.ID]bool // at the last look, and whether they were active
	blobs    int
	hints    int // reads of hints so far

	faults
}

func newSession(disk storage, opts db.Options, keys int, ref *reference) *session {
	s := &session{opts: opts, keys: keys, ref: ref, versions: make(map[uint16]db.Version)}
	s.collected = new(collected)
	s.use(disk)
	return s
}

// use goes on with another disk.
func (s *session) use(disk storage) {
	if s.disk != nil {
		s.leave()
	}
	s.disk = disk
	if s.hook != nil {
		s.sim().OnOp(s.watchDisk)
	}
	disk.Fail(s.ask)
}

// ask is for [simdisk.Disk.Fail].
func (s *session) ask(op, name string, n int) error {
	if _, hint := segment.ParseHintName(name); hint && op == simdisk.OpReadAt {
		s.hints++
	}
	return s.inject(op, name, n)
}

// sim is the disk of a session that lies on a simulated one.
func (s *session) sim() *simdisk.Disk { return s.disk.(*simdisk.Disk) }

// leave gives up a store, whatever state it is in. It must have no timers and
// its disk no hooks any more: what removes large values holds on to the disk,
// and through them it would hold on to the values.
func (s *session) leave() {
	if s.hook != nil {
		s.sim().OnOp(nil)
	}
	s.disk.Fail(nil)
	if s.store != nil {
		s.store.Close()
	}
}

// watchDisk calls the hook, but not for what the collector does.
func (s *session) watchDisk(n int, op string) {
	if op != simdisk.OpRemove || !s.collected.has(n) {
		s.hook(n, op)
	}
}

// open opens the store and takes what it finds, if that is possible. Should a
// fault prevent it, another try without one must succeed.
func (s *session) open() (err error) {
	s.opts.FS = s.disk
	s.faults.restart()
	s.segments, s.hints = nil, 0
	s.store, err = db.Open("", &s.opts)
	if err != nil {
		if err := s.explain(err); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		s.fault = fault{}
		s.store, err = db.Open("", &s.opts)
	}
	if !s.lasting {
		s.fault = fault{}
	}
	if err != nil {
		return fmt.Errorf("open without the fault: %w", err)
	}
	const headAndFooter = 2 // of a hint that is of no use
	if s.hints > headAndFooter {
		s.seen.note(sawHint)
	}
	return s.calmly(func() error {
		found, err := s.read(s.store.Get)
		if err != nil {
			return err
		}
		return s.ref.settle(found)
	})
}

// calmly does something during which nothing fails.
func (s *session) calmly(do func() error) error {
	f := s.fault
	s.fault = fault{}
	defer func() { s.fault = f }()
	return do()
}

// run opens the store, does all operations and closes it.
func (s *session) run(ops []operation, after func() error) error {
	if err := s.open(); err != nil {
		return err
	}
	for i, op := range ops {
		s.at = i
		err := s.do(op)
		if err == nil {
			err = after()
		}
		if err != nil {
			return fmt.Errorf("operation %d, %v: %w", i, op, err)
		}
		s.look(op)
	}
	s.at = len(ops)
	return s.close(false)
}

func (s *session) do(op operation) error {
	s.syncFailed = false
	s.seen.note(kinds[op.kind].name)
	return kinds[op.kind].do(s, op)
}

func (s *session) prepareFault(op operation) error {
	s.fault = op.fault
	return nil
}

func (s *session) sync(operation) error {
	err := s.store.Sync()
	switch {
	case err == nil && s.poisoned:
		return errors.New("sync succeeds although one has failed before")
	case err == nil:
		s.ref.sync()
	default:
		s.poisoned = s.poisoned || s.syncFailed
		return s.explain(err)
	}
	return nil
}

// advance lets time pass. The timer of SyncInterval is at most SyncEvery away.
func (s *session) advance(op operation) error {
	d := op.delay
	s.disk.Advance(d)
	s.poisoned = s.poisoned || s.syncFailed
	if s.fired != nil {
		return nil
	}
	synced := time.Duration(0)
	if s.opts.Sync == db.SyncInterval {
		synced = cmp.Or(s.opts.SyncEvery, defaultSyncEvery)
	}
	if s.opts.Sync == db.SyncInterval && d >= synced {
		s.ref.sync()
	}
	if s.opts.Sync != db.SyncNever && d >= synced+watermark {
		s.follower.base = len(s.ref.commits)
	}
	return nil
}

const (
	defaultSyncEvery = 100 * time.Millisecond
	watermark        = 50 * time.Millisecond // when the writer says how much is durable
)

// reopen stops and starts the store.
func (s *session) reopen(op operation) error {
	if err := s.close(op.late); err != nil {
		return err
	}
	return s.open()
}

// close closes the store and everything that is open beside it, before that
// or, unless something has failed, after.
func (s *session) close(late bool) error {
	late = late && s.fired == nil
	if !late {
		if err := s.calmly(s.closeReaders); err != nil {
			return err
		}
	}
	err := s.store.Close()
	if open := len(s.values)+len(s.snapshots) > 0; open && errors.Is(err, db.ErrOpenHandles) {
		s.seen.note(sawHandles)
		err = nil
	} else if open {
		return fmt.Errorf("close with open handles: %v", err)
	}
	switch {
	case err == nil && s.poisoned:
		return errors.New("close succeeds although a sync has failed")
	case err == nil:
		s.ref.sync()
	case s.explain(err) != nil:
		return fmt.Errorf("close: %w", s.explain(err))
	}
	s.ref.stopped()
	if late {
		err = s.outlive()
	} else {
		err = s.closeReaders()
	}
	return errors.Join(err, s.checkClosed())
}

// checkClosed sees to it that a closed store says so.
func (s *session) checkClosed() error {
	key := keyBytes[0]
	_, get := s.store.Get(nil, key)
	_, value := s.store.Value(key)
	_, snapshot := s.store.Snapshot()
	for _, err := range []error{
		get, value, snapshot, s.store.Sync(), s.store.Put(key, nil, nil),
		s.store.View(key, func([]byte) error { return nil }),
	} {
		if !errors.Is(err, db.ErrClosed) {
			return fmt.Errorf("a closed store says %v", err)
		}
	}
	return s.store.Close()
}

// compact gives back all space that is to be had. It must not change contents.
func (s *session) compact(operation) error {
	err := s.store.Compact(context.Background(), nil)
	s.poisoned = s.poisoned || s.syncFailed
	if err == nil || s.poisoned {
		return nil
	}
	return s.explain(err)
}

// kill leaves the store as the end of the process would, and opens it anew.
// What a failed sync has lost may be gone from the cache by then.
func (s *session) kill(op operation) error {
	if err := s.calmly(func() error { return errors.Join(s.closeReaders(), s.closeOutlived()) }); err != nil {
		return err
	}
	next, err := clone(s.disk)
	if err != nil {
		return err
	}
	s.use(next)
	s.ref.stopped()
	if sim, ok := next.(*simdisk.Disk); ok && op.dropCaches && s.fired != nil {
		sim.DropCaches()
		s.ref.mayFind = s.ref.mayLeave
	}
	return s.open()
}

// clone returns what the next process finds if this one is killed now. Of a real
// directory nothing is lost but what the store still has in memory.
func clone(disk storage) (storage, error) {
	if sim, ok := disk.(*simdisk.Disk); ok {
		return sim.Clone(), nil
	}
	return disk.(*realDisk).copy()
}
