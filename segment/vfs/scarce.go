package vfs

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Descriptors and mappings that nothing uses any more come back with a
// collection. The collector does not know how many there are, so it may not begin
// one before they have run out.

const (
	collectRate = time.Second // at most one forced collection in this time, in the process
	retries     = 20          // cleanups run soon after a collection, not in it
	settleTries = 200
	settlePause = 5 * time.Millisecond
)

var lastCollection atomic.Int64 // in nanoseconds since 1970

// AfterCollection does something and, if it fails for want of descriptors,
// mappings or memory, forces a collection and does it again. At most one
// collection a second is forced.
func AfterCollection(collect func(), do func() error) error {
	err := do()
	if !isScarce(err) || collect == nil {
		return err
	}
	now, last := time.Now().UnixNano(), lastCollection.Load()
	if now-last > int64(collectRate) && lastCollection.CompareAndSwap(last, now) {
		collect()
	}
	for range retries {
		if err = do(); !isScarce(err) {
			break
		}
		time.Sleep(settlePause)
	}
	return err
}

func isScarce(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// openRetrying is open, with another try after a collection.
func (d *Dir) openRetrying(open func() (*os.File, error)) (f *os.File, err error) {
	err = AfterCollection(d.Collect, func() (err error) {
		f, err = open()
		return err
	})
	return f, err
}

// Settle forces a collection and waits, for 1 s at most, until the files that
// nothing uses any more are closed and not mapped. It returns as soon as they are.
func (d *Dir) Settle() {
	if d.Collect == nil || d.files.Load() == 0 {
		return
	}
	d.Collect()
	for range settleTries {
		if d.files.Load() == 0 {
			return
		}
		time.Sleep(settlePause)
	}
}
