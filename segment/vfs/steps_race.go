//go:build race

package vfs

import "sync/atomic"

var stepHook atomic.Pointer[func()]

// BetweenSteps is called between the steps of a reader: loading the segments,
// finding the record, reading it, using it. Tests force collections there.
func BetweenSteps() {
	if hook := stepHook.Load(); hook != nil {
		(*hook)()
	}
}

// SetStepHook has BetweenSteps call a function, or none if hook is nil.
func SetStepHook(hook func()) {
	if hook == nil {
		stepHook.Store(nil)
		return
	}
	stepHook.Store(&hook)
}
