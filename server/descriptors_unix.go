//go:build unix

package server

import (
	"math"
	"syscall"
)

// maxDescriptors is how many file descriptors the process may have.
func maxDescriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return uint64(limit.Cur)
}
