//go:build !linux

package vfs

import "math"

// freeBytes takes the disk for large: there is no portable way to ask.
func freeBytes(string) (int64, error) { return math.MaxInt64, nil }
