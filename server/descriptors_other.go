//go:build !unix

package server

import "math"

// maxDescriptors is how many file descriptors the process may have.
func maxDescriptors() uint64 { return math.MaxInt32 }
