package fuzz

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// fault makes file operations of one kind fail: the next ones after skip
// others, until times have failed or the store has been opened again.
type fault struct {
	op    string
	skip  int
	times int
	err   error
}

func (f fault) String() string {
	return fmt.Sprintf("fault: %s fails after %d others, %d times: %v", f.op, f.skip, f.times, f.err)
}

// fault draws one.
func (g generator) fault() fault {
	kinds := []string{
		simdisk.OpDatasync, simdisk.OpDatasync, simdisk.OpDatasync, simdisk.OpDatasync,
		simdisk.OpDatasync, simdisk.OpDatasync, simdisk.OpDatasync, simdisk.OpDatasync, simdisk.OpSync, simdisk.OpSyncDir, simdisk.OpSyncDir,
		simdisk.OpWriteVec, simdisk.OpWriteVec, simdisk.OpCreate, simdisk.OpReserve,
		simdisk.OpRename, simdisk.OpRemove, simdisk.OpTrim,
	}
	f := fault{op: kinds[g.IntN(len(kinds))], skip: g.IntN(3), times: 1, err: syscall.EIO}
	if g.IntN(3) == 0 {
		f.err = syscall.ENOSPC
	}
	if g.IntN(4) == 0 {
		f.times = 1000
	}
	if f.op == simdisk.OpWriteVec && g.IntN(2) == 0 {
		f.err, f.times = simdisk.Short{N: 1 + g.IntN(600)}, 1+g.IntN(3)
	}
	return f
}

// faults lets the operations of a disk fail, and keeps account of what that
// means for the store.
type faults struct {
	fault      fault   // what is left of it
	lasting    bool    // it outlives an Open
	hits       int     // so often has it struck
	fired      []error // what has failed since the store was opened
	syncFailed bool    // a datasync of records has, in the present operation of the history
	poisoned   bool    // so no write may succeed any more

	collected *collected
}

// restart begins anew with another process. The fault stays, and the collector
// may be at work meanwhile.
func (f *faults) restart() { f.fired, f.syncFailed, f.poisoned = nil, false, false }

// inject returns the error that a file operation has to fail with.
func (f *faults) inject(op, name string, n int) error {
	if op == simdisk.OpRemove && f.collected.note(name, n) {
		return nil
	}
	if op != f.fault.op || f.fault.times == 0 {
		return nil
	}
	if f.fault.skip > 0 {
		f.fault.skip--
		return nil
	}
	f.fault.times--
	f.hits++
	err := f.fault.err
	if short, ok := err.(simdisk.Short); ok && short.N > 0 {
		return err // to be repeated by the store, not noticed by anybody
	} else if ok {
		err = io.ErrShortWrite
	}
	f.fired = append(f.fired, err)
	f.syncFailed = f.syncFailed || op == simdisk.OpDatasync && calledBy(".syncActive")
	return f.fault.err
}

// collected are the operations that the garbage collector has done: it removes
// the file of a large value once nobody can read it, at any time and beside
// whatever else the store is doing. They don't concern the history.
type collected struct {
	count      atomic.Int64
	operations sync.Map // by number
}

// note reports whether a removal is one of those.
func (c *collected) note(name string, n int) bool {
	if _, blob := segment.ParseBlobName(name); !blob || !calledBy("/db.release") {
		return false
	}
	c.operations.Store(n, true)
	c.count.Add(1)
	return true
}

func (c *collected) has(n int) bool {
	_, ok := c.operations.Load(n)
	return ok
}

// calledBy reports whether the caller runs on behalf of a function: the file of
// records is synced in one place, and that of a blob removed by the collector in
// another.
func calledBy(function string) bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, function) {
			return true
		}
		if !more {
			return false
		}
	}
}

// injected reports whether an error is one of those that fired.
func (f *faults) injected(err error) bool {
	return slices.ContainsFunc(f.fired, func(e error) bool { return errors.Is(err, e) })
}

// explain returns nil for the error of a write that has to do with what fired
// and is of the right type: that of a full disk is ErrNoSpace, and no other is.
func (f *faults) explain(err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	switch {
	case !f.injected(err):
		return fmt.Errorf("no fault explains: %w", err)
	case full != errors.Is(err, db.ErrNoSpace):
		return fmt.Errorf("should be ErrNoSpace: %v, is not so: %w", full, err)
	}
	return nil
}
