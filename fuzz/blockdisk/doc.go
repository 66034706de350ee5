// Package blockdisk lets the power fail under real file systems. It is a
// module of its own, so that the library it takes to be a disk stays out of
// crowfly's, and has no code but tests.
//
// A store lies on ext4, xfs or btrfs, that on a loop device, that on a file
// which the test serves by FUSE. So the test sees every block written and every
// flush, in one log:
//
//	store, and files beside it   workload_test.go, churn_test.go
//	recorder                     history_test.go    every file operation, with its place in the log
//	file system, loop device     mount_linux_test.go
//	FUSE, log of the disk        disk_linux_test.go
//
// A power cut is a position in the log: what was written before the last flush
// is on the disk, and of the 4 KiB blocks written since then a subset
// (image_test.go). The disk that leaves is mounted, and two questions are asked.
//
// Does the store hold what it has promised (reference_test.go)? An acknowledged
// write counts if the log was not longer than the cut when it was acknowledged.
//
// Could the simulated disk have left these files (possible_test.go)? All other
// crash tests use that one, so nothing may happen to a real one that it does
// not know. Beside the store files are written with hardly a sync, so that
// there is more to be seen. simulator_test.go proves that the comparison allows
// what the simulated disk does, and refuses what it does not.
//
// The disk is made to lie at last, and has to be found out by both.
//
// It needs Linux, root, FUSE, loop devices and the tools that make the file
// systems (e2fsprogs, xfsprogs, btrfs-progs), and is skipped without. Mounts and
// loop devices belong to a process in mount points of its own and go with it,
// however it ends. Where the kernel writes when is not in our hands, so a seed
// repeats a workload but not its log: after a failure the log is saved, and can
// be tried again.
//
// Environment variables:
//
//	CROWFLY_IMAGES=n      let the power fail n times on each file system instead of 20
//	CROWFLY_SEED=n        begin with this seed instead of any
//	CROWFLY_REPLAY=path   take this saved log; CROWFLY_IMAGES has to be the same
//	CROWFLY_NO_SKIP=1     fail where a test would be skipped
package blockdisk
