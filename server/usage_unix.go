//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package server

import (
	"syscall"
	"time"
)

// usageOf asks the system what this process has used.
func usageOf() (u usage, ok bool) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return u, false
	}
	return usage{
		user: time.Duration(r.Utime.Nano()), system: time.Duration(r.Stime.Nano()),
		minorFaults: int64(r.Minflt), majorFaults: int64(r.Majflt),
		voluntary: int64(r.Nvcsw), involuntary: int64(r.Nivcsw),
	}, true
}
