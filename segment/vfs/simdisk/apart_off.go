//go:build !race

package simdisk

// apart runs a hook.
func apart(hook func()) { hook() }
