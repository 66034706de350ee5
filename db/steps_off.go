//go:build !race

package db

// betweenSteps is called between the steps of a reader. It does nothing.
func betweenSteps() {}
