package vfs

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
)

// FaultError says that a page of a mapped file could not be read: the disk
// failed, or somebody made the file shorter. It wraps EIO.
type FaultError struct {
	Path   string // file
	Offset int64  // in it, in bytes
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("%s: can't read the page at offset %d", e.Path, e.Offset)
}

func (e *FaultError) Unwrap() error { return syscall.EIO }

// BeginGuard and EndGuard stand around whatever touches mapped files, in one
// line at the head of a function with a named error:
//
//	defer vfs.EndGuard(vfs.BeginGuard(), &err)
//
// A page that can't be read then makes the function return a *FaultError
// instead of ending the process. It concerns the function itself and what it
// calls in the same goroutine, so code of the user is called outside.
func BeginGuard() (before bool) { return debug.SetPanicOnFault(true) }

// EndGuard is deferred. Panics that are not faults in a mapped file go on.
func EndGuard(before bool, err *error) {
	debug.SetPanicOnFault(before)
	if p := recover(); p != nil {
		*err = faultIn(p)
	}
}

// faultIn finds the file in which a fault happened.
func faultIn(p any) *FaultError {
	fault, ok := p.(interface {
		runtime.Error
		Addr() uintptr
	})
	if ok {
		if found := mapped.find(fault.Addr()); found != nil {
			return found
		}
	}
	panic(p)
}
