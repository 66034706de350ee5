package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// session is a store that is driven by a history, next to the reference that
// knows what it has to contain. Every method that returns an error returns a
// difference between the two.
type session struct {
	disk *simdisk.Disk
	opts db.Options
	keys int                    // use so many of keys
	hook func(n int, op string) // for all disks the store comes to lie on

	ref       *reference
	store     *db.DB
	snapshots []takenSnapshot
	follower  follower

	faults
}

func newSession(disk *simdisk.Disk, opts db.Options, keys int, ref *reference) *session {
	s := &session{opts: opts, keys: keys, ref: ref}
	s.use(disk)
	return s
}

// use goes on with another disk.
func (s *session) use(disk *simdisk.Disk) {
	s.disk = disk
	disk.OnOp(s.hook)
	disk.Fail(s.inject)
}

// open opens the store and takes what it finds, if that is possible. Should a
// fault prevent it, another try without one must succeed.
func (s *session) open() (err error) {
	s.opts.FS = s.disk
	s.faults.restart()
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
		err := s.do(op)
		if err == nil {
			err = after()
		}
		if err != nil {
			return fmt.Errorf("operation %d, %v: %w", i, op, err)
		}
	}
	return s.close()
}

func (s *session) do(op operation) error {
	s.syncFailed = false
	switch op.kind {
	case opPut, opDelete, opBatch:
		return s.write(op)
	case opSync:
		return s.sync()
	case opAdvance:
		return s.advance(op.delay)
	case opReopen:
		return s.reopen()
	case opKill:
		return s.kill(op.dropCaches)
	case opSnapshot:
		return s.takeSnapshot()
	case opFollow:
		return s.follow()
	case opRefresh:
		return s.refresh()
	}
	s.fault = op.fault
	return nil
}

// write does a put, a delete or a batch, and compares what it reports.
func (s *session) write(op operation) error {
	before, changes := s.ref.now(), s.number(op)
	s.ref.begin(changes)
	rejects := s.poisoned
	existed, err := s.apply(op, changes)
	switch {
	case err == nil && rejects:
		return errors.New("acknowledged although a sync has failed before")
	case err == nil:
		if err := checkExisted(before, changes, existed); err != nil {
			return err
		}
		s.ref.acknowledge(op.synced || s.opts.Sync == db.SyncAlways)
		return nil
	case s.explain(err) != nil:
		return s.explain(err)
	case rejects:
		s.ref.refuse()
	}
	s.poisoned = s.poisoned || s.syncFailed
	if s.ref.open() > 3 {
		return s.reopen() // there are as many choices as two to that power
	}
	return nil
}

// number gives the puts of a write their values.
func (s *session) number(op operation) (list []change) {
	switch op.kind {
	case opPut:
		return []change{{op.key, s.ref.newValue(op.size)}}
	case opDelete:
		return []change{{op.key, 0}}
	}
	for _, b := range op.batch {
		list = append(list, s.number(b)...)
	}
	return list
}

// apply returns for each change whether the store says that the key had a
// value before, or nothing if it does not say so.
func (s *session) apply(op operation, changes []change) (existed []bool, err error) {
	o := &db.PutOptions{}
	if op.synced {
		o.Sync = db.SyncAlways
	}
	switch op.kind {
	case opPut:
		c := changes[0]
		o.Metadata = metadata(c.value)
		if op.stream {
			_, err := s.store.PutReader(context.Background(), []byte(keys[c.key]), bytes.NewReader(s.ref.values[c.value]), -1, o)
			return nil, err
		}
		return nil, s.store.Put([]byte(keys[c.key]), s.ref.values[c.value], o)
	case opDelete:
		err := s.store.Delete([]byte(keys[op.key]), o)
		if errors.Is(err, db.ErrNotFound) {
			return []bool{false}, nil
		}
		return []bool{true}, err
	}
	var b db.Batch
	for _, c := range changes {
		if c.value == 0 {
			b.Delete([]byte(keys[c.key]))
		} else {
			b.Put([]byte(keys[c.key]), s.ref.values[c.value], metadata(c.value))
		}
	}
	if err := s.store.Apply(&b, o); err != nil {
		return nil, err
	}
	for i := range changes {
		existed = append(existed, b.Result(i).Existed)
	}
	return existed, nil
}

func checkExisted(before state, changes []change, existed []bool) error {
	for i, e := range existed {
		if want := before[changes[i].key] != 0; e != want {
			return fmt.Errorf("change %d of key %d: the store says existed %v, it is %v", i, changes[i].key, e, want)
		}
		before[changes[i].key] = changes[i].value
	}
	return nil
}

func (s *session) sync() error {
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
func (s *session) advance(d time.Duration) error {
	s.disk.Advance(d)
	s.poisoned = s.poisoned || s.syncFailed
	if s.fired != nil {
		return nil
	}
	if s.opts.Sync == db.SyncInterval && d >= syncEvery {
		s.ref.sync()
	}
	if s.opts.Sync == db.SyncAlways && d >= watermark || s.opts.Sync == db.SyncInterval && d >= syncEvery+watermark {
		s.follower.base = len(s.ref.commits)
	}
	return nil
}

const (
	syncEvery = 100 * time.Millisecond // the default of the options
	watermark = 50 * time.Millisecond  // when the writer says how much is durable
)

// reopen stops and starts the store.
func (s *session) reopen() error {
	if err := s.close(); err != nil {
		return err
	}
	return s.open()
}

// close closes the store and everything that is open beside it.
func (s *session) close() error {
	if err := s.calmly(s.closeReaders); err != nil {
		return err
	}
	err := s.store.Close()
	switch {
	case err == nil && s.poisoned:
		return errors.New("close succeeds although a sync has failed")
	case err == nil:
		s.ref.sync()
	case s.explain(err) != nil:
		return fmt.Errorf("close: %w", s.explain(err))
	}
	s.ref.stopped()
	return nil
}

// kill leaves the store as the end of the process would, and opens it anew.
// What a failed sync has lost may be gone from the cache by then.
func (s *session) kill(dropCaches bool) error {
	if err := s.calmly(s.closeReaders); err != nil {
		return err
	}
	s.use(s.disk.Clone())
	s.ref.stopped()
	if dropCaches && s.fired != nil {
		s.disk.DropCaches()
		s.ref.mayFind = s.ref.mayLeave
	}
	return s.open()
}
