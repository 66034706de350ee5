//go:build !race

package vfs

// BetweenSteps is called between the steps of a reader: loading the segments,
// finding the record, reading it, using it. It does nothing.
func BetweenSteps() {}
