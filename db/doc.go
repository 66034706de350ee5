// Package db is the crowfly store: keys and values in append-only segment
// files, found through an index in memory, read as slices of the mapping.
//
// # Nouns
//
// A [DB] is an open store. A [Batch] is a set of changes made at once. A
// [Value] is a handle to one value, a [Snapshot] a handle to the whole store
// as it was at one moment. [Options] and [PutOptions] say how durable a write
// is. That is all a user has to know.
//
// # Writing
//
//	Put, Delete, Apply -> commit queue, one leader per group   commit.go
//	  -> segment.Writer: Append, Write, Sync                   one datasync per group
//	  -> index.Publish -> acknowledge
//
// A write that has been acknowledged in SyncAlways, the default, survives the
// end of the process, of the system and of the power, if the disk keeps what
// it says it has synced. A batch is all there or not at all. A write that
// failed with anything but a complaint about its arguments or conditions has an unknown
// outcome until the store is reopened, which settles it. After a failed sync
// there are no more writes until then.
//
// # Reading
//
//	View(key) -> index.Lookup -> segment -> slice of the mapping
//
// Readers take no lock, wait for no writer and do not allocate. Published
// bytes never change and a named file never gets shorter, so a slice is good
// for as long as something holds its Segment: View and Lend for the call, a
// Value or a Snapshot until Close. A slice kept longer than that is a bug; it faults, it
// never shows bytes of another file. Mappings are given up when the garbage
// collector finds that nobody refers to them, which proves that no reader is
// left.
//
// Memory that a reader touches may have to come from disk. That holds up one of the
// GOMAXPROCS processors that goroutines share. LendResident refuses to wait, and
// Prefetch brings a record in without holding anybody up; the store does so before it
// verifies a value of 64 KiB or more.
//
// A value is verified against its checksum on its first use after Open, Get
// verifies each time.
//
// # Locks
//
// The engine takes its locks in the order of the table in package lockorder. A
// build with the race detector panics where the order is broken.
//
// # Files
//
//	LOCK                      held by the writer like the directory, never removed
//	MANIFEST-<generation>     the list of segments, see package manifest
//	<id>.seg                  see package segment
//	<id>.blob                 one large value, see blobs.go
//	<id>.hint                 spares Open the reading of a segment, see hint.go
//	tmp-*                     leftovers, removed by Open
//	trash/                    what Repair took out of the store, never read. Open
//	                          moves there what a repair that was cut off did not
//
// The manifest decides which segments exist. A segment is active, that is
// being written by the present run, or sealed. No run appends to a file of an
// earlier one: what it finds behind the last proven sync it copies. Order is
// decided by sequence numbers alone, the highest one of a key wins, wherever
// it lies.
//
// # Where to read on
//
// commit.go is the write path, reserve.go what it does for a full disk, room.go
// how compaction makes room there, read.go the read path, recover.go what Open
// does, compact.go how records move, pinned.go what becomes of removed segments
// that somebody reads, and follow.go how a read-only store keeps up with a writer in
// another process. Package manifest has the list of segments, and package check reads
// a damaged store and makes it whole again.
package db
