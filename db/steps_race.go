//go:build race

package db

import "sync/atomic"

// stepHook, if set, is called between the steps of a reader: loading the state,
// finding the record, reading it, using it. Tests force collections there.
var stepHook atomic.Pointer[func()]

func betweenSteps() {
	if hook := stepHook.Load(); hook != nil {
		(*hook)()
	}
}
