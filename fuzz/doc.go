// Package fuzz tests the whole store: against a model, across power cuts,
// with damaged and foreign files, and with the engine sabotaged on purpose to
// see that these tests notice. It has no code of its own.
//
//	operation_test.go    what a history is made of
//	generate_test.go     random histories
//	reference_test.go    what a store has to contain, certainly or possibly
//	session_test.go      a store driven by a history, next to its reference:
//	  write_test.go        puts, deletes, batches and their conditions
//	  values_test.go       one value, as a handle and piece by piece
//	  readers_test.go      contents and snapshots
//	  list_test.go         listings
//	  follower_test.go     read-only opens
//	  faults_test.go       failing file operations
//	  coverage_test.go     what it came through
//	model_test.go        histories compared after every step
//	errors_test.go       every file operation of a workload fails, once or for ever
//	crash_test.go        a power cut after every file operation of a history
//	cut_test.go          the states of the disk that a power cut can leave
//	exhaustive_test.go   the same for all short histories
//	concurrent_test.go   the same for several writers at a time
//	shrink_test.go       a failing history made shorter
//	victim_test.go       a store that damage is done to, and who judges the rest
//	damage_test.go       every bit, length and file of it
//	sectors_test.go      every sector of it: lost, misdirected, exchanged, stale
//	badinput_test.go     random, newer, foreign and half copied files
//	*_fuzz_test.go       fuzz targets: decoders, openers, directories, histories
//	repair_test.go       damage of every kind, repaired and compared
//	sabotage_test.go     proof that the above fail when they should
//
// A point is one image that is recovered and compared: a history, a cut, and a
// state of the disk that no other image of the same cut has. After every file
// operation, those of recoveries included, there are the end of the process
// and, if anything is not durable, eight power cuts that between them lose
// things in every manner of package simdisk. States that turn out the same
// count once.
//
// and with real processes on a real directory:
//
//	kill_linux_test.go     a writer killed at any moment, recovery included
//	torn_linux_test.go     a write that a kill cuts short
//	lock_linux_test.go     one writer, whatever the directory is called
//	beside_linux_test.go   followers beside a writer, killed ones too
//	durable_linux_test.go  followers show what is synced and nothing else
//
// and with one process on a real directory:
//
//	realdisk_test.go          a directory whose file operations fail on demand
//	realerrors_linux_test.go  errors_test.go there: no descriptor, mapping or
//	                          goroutine is left
//
// FuzzHead and FuzzFraming, which hold the server's own reading of requests against
// that of net/http, are in package server.
//
// blockdisk is a module of its own: power cuts under ext4, xfs and btrfs, which
// also show that the simulated disk allows everything that happens there.
//
// Environment variables widen the tests:
//
//	CROWFLY_POINTS=n        check n points in TestCrash instead of the default;
//	                        from a million on use -v, which shows how it gets on,
//	                        and -timeout 0
//	CROWFLY_DEPTH=n         try all histories of up to n operations instead of 2
//	CROWFLY_HISTORIES=n     so many in TestModel
//	CROWFLY_SEED=n          start with this history
//	CROWFLY_REPLAY=path     check this crash image of that history only
//	CROWFLY_SABOTAGE=all    try every sabotage, not only the first
//	                        (with -run 'TestSabotage$/its_name' a single one)
//	CROWFLY_ERRORS=all      let every file operation fail in every way, on the
//	                        simulated disk and in the real directory
//	CROWFLY_KILLS=n         kill n writers instead of the default, n/10 beside followers
//	CROWFLY_DAMAGE=n        do one damage of n, instead of a smaller sample
//	CROWFLY_FULL=1          do all damage instead of a sample: every bit, length and
//	                        sector, and every pair of sectors
package fuzz
