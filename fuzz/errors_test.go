package fuzz

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// failingOps are all kinds of file operations there are.
var failingOps = []string{
	simdisk.OpCreate, simdisk.OpOpen, simdisk.OpWriteVec, simdisk.OpDatasync, simdisk.OpSync, simdisk.OpSyncDir,
	simdisk.OpRename, simdisk.OpRemove, simdisk.OpReserve, simdisk.OpTrim, simdisk.OpReadAt, simdisk.OpList,
	simdisk.OpSize, simdisk.OpMap, simdisk.OpLock, simdisk.OpLocked,
}

// failures are how they fail.
func failures(op string) (list []fault) {
	errs := []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EINTR, syscall.EMFILE, syscall.ENOMEM}
	if op == simdisk.OpWriteVec {
		errs = append(errs, simdisk.Short{}, simdisk.Short{N: 1}, simdisk.Short{N: 700})
	}
	const forEver = 1 << 30
	for _, err := range errs {
		list = append(list, fault{op: op, times: 1, err: err}, fault{op: op, times: forEver, err: err})
	}
	return list
}

// errorWorkload does everything that a store can do, with segments so small
// that rotation, folding, blobs and tails to recover are among it.
func errorWorkload() []operation {
	put := func(key, size int) operation { return operation{kind: opPut, key: key, size: size} }
	remove := func(key int) operation { return operation{kind: opDelete, key: key} }
	quiet := operation{kind: opAdvance, delay: defaultSyncEvery + watermark}
	return []operation{
		put(0, 100), put(1, 2500), put(2, 2500), // the last one needs the next segment
		{kind: opBatch, batch: []operation{put(3, 10), remove(0), put(4, 300)}},
		{kind: opSnapshot},
		put(5, 5000), {kind: opPut, key: 6, size: 6000, source: fromStream}, // blobs
		remove(5), {kind: opSync}, {kind: opFollow}, put(0, 20), quiet, {kind: opRefresh},
		put(1, 1500), put(2, 1500), put(3, 1500), quiet, {kind: opRefresh},
		{kind: opReopen}, put(4, 30), {kind: opReopen}, put(0, 40), remove(1), {kind: opReopen},
		put(1, 50), {kind: opSnapshot}, // folds the small segments
		put(7, 700), {kind: opKill}, // with a tail to be copied
		{kind: opFollow}, put(6, 4500), remove(4), quiet, {kind: opRefresh}, put(3, 5),
		{kind: opKill, dropCaches: true},
		{kind: opBatch, synced: true, batch: []operation{put(0, 9000), remove(7)}}, // a segment of its own
		put(7, 10),
	}
}

var errorSettings = []db.Options{
	{Sync: db.SyncAlways, SegmentSize: 4 << 10, BlobSize: 4 << 10},
	{Sync: db.SyncInterval, SegmentSize: 4 << 10, BlobSize: 4 << 10},
}

// errorRun is one pass of the workload with one fault.
type errorRun struct {
	*session
	handles []*simdisk.Handles // of all simulated disks it used
	left    int                // calls that the fault would still have let pass
}

func newErrorRun(disk storage, opts db.Options, f fault) *errorRun {
	s := newSession(disk, opts, crashKeys, newReference())
	s.fault, s.lasting = f, true
	return &errorRun{session: s}
}

// run does the workload. After each operation published values are read, once
// while the fault may strike and once while it can't. At last the store is
// opened without a fault.
func (r *errorRun) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := r.work(); err != nil {
		return err
	}
	r.left, r.fault = r.fault.skip, fault{}
	defer func() { dismiss(r.disk, r.store) }()
	if err := r.session.run(nil, nil); err != nil {
		return fmt.Errorf("without the fault: %w", err)
	}
	return nil
}

func (r *errorRun) work() error {
	r.note()
	if err := r.session.open(); err != nil {
		return err
	}
	for i, op := range errorWorkload() {
		err := r.step(op)
		r.note()
		if err == nil {
			err = errors.Join(r.readOn(), r.calmly(r.check))
		}
		if err != nil {
			return fmt.Errorf("operation %d, %v: %w", i, op, err)
		}
	}
	return r.close(false)
}

// dismiss cuts the ties between a disk and a store that is not used any more:
// hooks and timers, which would keep its files in use.
func dismiss(disk storage, store *db.DB) {
	disk.Fail(nil)
	store.Close() // one that was killed lives on on the disk it had
	disk.Advance(time.Second)
}

// note keeps the accounts of the present disk, if it is a simulated one.
func (r *errorRun) note() {
	sim, ok := r.disk.(*simdisk.Disk)
	if !ok {
		return
	}
	h := sim.Handles()
	if n := len(r.handles); n == 0 || r.handles[n-1] != h {
		r.handles = append(r.handles, h)
	}
}

func (r *errorRun) step(op operation) error {
	switch op.kind {
	case opFollow, opRefresh:
		return r.tolerate(func() error { return r.do(op) })
	case opSnapshot:
		return r.calmly(func() error { return r.do(op) })
	case opKill:
		defer dismiss(r.disk, r.store)
	}
	return r.do(op)
}

// tolerate does something that only reads. If the fault strikes it may fail,
// but not once the fault is over.
func (r *errorRun) tolerate(do func() error) error {
	struck := r.hits
	err := do()
	if err == nil || r.hits == struck {
		return err
	}
	if !r.injected(err) {
		return fmt.Errorf("no fault explains: %w", err)
	}
	return r.calmly(do)
}

// readOn reads every key while the fault may strike. A value in a segment does
// not notice; the file of a blob may have to be opened.
func (r *errorRun) readOn() error {
	want := r.ref.now()
	for k := range keys[:r.keys] {
		struck := r.hits
		err := r.readKey(k, want[k])
		blob := len(r.ref.values[want[k]]) >= int(r.opts.BlobSize)
		if err != nil && !(blob && r.hits > struck && r.injected(err)) {
			return fmt.Errorf("reading on, key %d: %w", k, err)
		}
	}
	return nil
}

func (r *errorRun) readKey(k int, want uint16) error {
	found, key := uint16(0), []byte(keys[k])
	note := func(b []byte) (err error) {
		found, err = r.ref.number(b)
		return err
	}
	var err error
	if k%2 == 0 {
		err = r.store.View(key, note)
	} else if b, getErr := r.store.Get(nil, key); getErr == nil {
		err = note(b)
	} else {
		err = getErr
	}
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	if found != want {
		return fmt.Errorf("Get finds v%d, should be v%d", found, want)
	}
	return nil
}

// TestErrors promises that no failing file operation loses anything
// acknowledged, stops reads of what is published, hangs, panics or leaves a
// file open; that writes then fail with an error of the right type; and that
// the store opens again once nothing fails, with all it has to contain.
// Method: a workload runs on a simulated disk again and again. The n-th call
// of one kind fails, for each n until the workload has no n-th call, and so for
// each kind. Each n draws one way to fail, once or for ever, unless
// CROWFLY_ERRORS=all wants every way for every n.
func TestErrors(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	t.Run("all", func(t *testing.T) {
		for i, opts := range errorSettings {
			for _, op := range failingOps {
				t.Run(fmt.Sprintf("%s/%d", op, i), func(t *testing.T) {
					t.Parallel()
					if os.Getenv("CROWFLY_ERRORS") != "all" {
						failEach(t, opts, failures(op))
						return
					}
					for _, f := range failures(op) {
						failEach(t, opts, []fault{f})
					}
				})
			}
		}
	})
	waitFor(t, "goroutines gone", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// failEach lets the first call fail, then the second, and so on, in one of
// these ways each.
func failEach(t *testing.T, opts db.Options, ways []fault) {
	const most = 1000
	rng := rand.New(rand.NewPCG(uint64(opts.Sync), 1))
	step := 1
	if underRace {
		step = 7
	}
	var handles []*simdisk.Handles
	n := 0
	for ; n < most; n += step {
		f := ways[rng.IntN(len(ways))]
		f.skip = n
		watchdog := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("hangs: %v", f)) })
		r := newErrorRun(simdisk.New(), opts, f)
		err := r.run()
		watchdog.Stop()
		if err != nil {
			t.Fatalf("%v\n%v", f, err)
		}
		handles = append(handles, r.handles...)
		if r.hits == 0 {
			break
		}
	}
	if n == 0 || n >= most {
		t.Errorf("the workload has %d calls of %s", n, ways[0].op)
	}
	checkHandles(t, handles)
}

// checkHandles makes sure that no file of stores that are gone is open, and
// none was left to the collector without need.
func checkHandles(t *testing.T, handles []*simdisk.Handles) {
	var open, forgotten []string
	waitFor(t, "files closed", func() bool {
		open, forgotten = nil, nil
		for _, h := range handles {
			open = append(open, h.Open()...)
			forgotten = append(forgotten, h.Forgotten()...)
		}
		return len(open) == 0
	})
	if len(open)+len(forgotten) > 0 {
		t.Errorf("still open: %q, forgotten: %q", open, forgotten)
	}
}

// waitFor lets the collector work until something is true.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	const attempts = 400
	for i := range attempts {
		if done() {
			return
		}
		runtime.GC()
		time.Sleep(time.Duration(i/10) * time.Millisecond)
	}
	t.Errorf("never: %s", what)
}
