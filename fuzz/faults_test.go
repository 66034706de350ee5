package fuzz

import (
	"fmt"
	"syscall"

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
	fault      fault // what is left of it
	fired      bool  // something has failed since the store was opened
	syncFailed bool  // a datasync of records has, in the present operation of the history
	poisoned   bool  // so no write may succeed any more
	created    map[string]bool
}

// restart begins anew with another process. The fault stays.
func (f *faults) restart() {
	*f = faults{fault: f.fault, created: make(map[string]bool)}
}

// inject is for [simdisk.Disk.Fail].
func (f *faults) inject(op, name string, _ int) error {
	records := f.created[name] // the first datasync of a file is for its header
	if op == simdisk.OpDatasync {
		f.created[name] = true
	}
	if op != f.fault.op || f.fault.times == 0 {
		return nil
	}
	if f.fault.skip > 0 {
		f.fault.skip--
		return nil
	}
	f.fault.times--
	if _, short := f.fault.err.(simdisk.Short); short {
		return f.fault.err // to be repeated by the store, not noticed by anybody
	}
	f.fired = true
	f.syncFailed = f.syncFailed || op == simdisk.OpDatasync && records
	return f.fault.err
}
