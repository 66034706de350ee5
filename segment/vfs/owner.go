package vfs

import "runtime"

// Own ties a resource that the collector knows nothing about (a mapping, a
// table off the heap, a slot, a file to unlink) to a Go object: once owner is
// unreachable, release(resource) runs, once, in a goroutine of the runtime.
//
// This is the only way such things are freed in crowfly. Readers take no lock,
// no pin and no count; a reader holds the owner, through the state it loaded,
// until it is done, and the collector proves that nobody does any more. For
// that to be true:
//
//   - owner is the object that readers provably hold. A reader that works with
//     something behind it (a slice of a mapping, a bare descriptor) ends with
//     runtime.KeepAlive(owner).
//   - release is a package-level function and resource plain values. A closure
//     or resource that refers to owner keeps it alive for ever, a leak that
//     nothing reports.
//   - release does not block: the runtime runs all cleanups in few goroutines.
func Own[T, R any](owner *T, release func(R), resource R) {
	runtime.AddCleanup(owner, release, resource)
}
