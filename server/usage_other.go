//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package server

// usageOf knows nothing here.
func usageOf() (u usage, ok bool) { return u, false }
