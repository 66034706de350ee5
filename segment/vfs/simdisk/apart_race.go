//go:build race

package simdisk

import "runtime"

// apart runs a hook in a goroutine of its own and waits for it. The hook is called
// while the engine does a file operation, and so while the goroutine holds locks of a
// store. What the hook does, with another store or as a reader would, is not done
// under these, as package lockorder would take it. A panic or the end of the hook's
// goroutine is passed on.
func apart(hook func()) {
	var failure any
	ended := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if !ended {
				failure = recover()
			}
		}()
		hook()
		ended = true
	}()
	<-done
	if ended {
		return
	}
	if failure != nil {
		panic(failure)
	}
	runtime.Goexit()
}
