// Package index finds records by key: a point index for the newest version of
// one key, an ordered index for snapshots, and how much of each segment is
// still live. All of it is in memory and can be rebuilt from the segments.
//
// # Two structures
//
// A B-tree alone would do, and it would be the slowest part of a read. With ten
// million keys of 16 bytes, on the machine crowfly was designed on:
//
//	                                      bytes/key   Get       full GC
//	btree of strings                      64          3.3 us    688 ms
//	btree of {8 key bytes, Ref}           18 to 25    1.3 us     29 ms
//	hash table of words off the Go heap   13          0.16 us   0.4 ms
//
// The floor is one cache line of the index and one of the record, about 0.15 us
// when the processor overlaps them. Only the hash table is near it, and only the
// tree has an order. So a Get asks the hash table and nothing else; the tree is
// built when the first snapshot is taken, is fed through a queue from then on,
// and is cloned, which is cheap, for each snapshot.
//
// # The point index
//
// The hash of a key is seeded anew for each index and resists floods. Its top 8
// bits choose one of 256 shards. A shard is a table of words with open
// addressing and linear probing:
//
//	63               41  40  39                       0
//	+------------------+---+--------------------------+
//	| 23 hash bits     | v | Ref                      |
//	+------------------+---+--------------------------+
//	v   header and value of the record have been verified
//	0   empty, the end of every chain
//	1   marker, a deleted word: the chain goes on
//
// The chain of a key begins at the top bits of the 23, so a table doubles from
// its own words. The keys themselves are in the segments only. Equal hash bits
// and another key is a collision only if that record verifies; a flipped bit
// must not turn a key into one that never was.
//
// A word stays where it is until it becomes a marker. A put searches its whole
// chain before it takes a marker's place, so no key ever has two words.
//
// # Reading
//
// The index owns the set of segments that readers can see ([Segments]), so the
// whole protocol is here. A reader takes no lock and counts nothing. It loads, in
// this order,
//
//	the set of segments -> the table of the shard -> the word -> the record
//
// and keeps each of them alive until it has the next one and no longer needs the
// one before. This is safe for these reasons:
//
//   - Attach publishes a set that contains a segment before the first word names
//     the segment. Detach takes the segment out only after no word names it.
//   - A word names a segment by its slot. A slot is not used again while its
//     Segment is reachable, and every set that a reader holds keeps its segments
//     reachable. So a word either names a segment that the reader's set has, and
//     then it is the right one, or a slot that the set lacks.
//   - If the set lacks the slot, the set is older than the word: the reader loads
//     the next set, which has the segment, and begins again.
//   - A [Hit] or [Location] holds its Segment. The collector can't release the
//     mapping before the last holder is gone. A caller that works with memory of
//     the segment ends with runtime.KeepAlive of the Segment.
//   - An [Ordered] holds the set of its moment. Every Ref in its clone of the tree
//     resolves there.
//
// # Publishing
//
// All changes happen under one lock. To publish a group of records:
//
//  1. What may take time: tables grow, the tree takes in the queue if it is
//     full, the pages of the older records are brought in.
//  2. The words of all records, then Visible. No I/O. A reader that meets a
//     record above Visible waits, as the older version is gone and the newer one
//     may not be seen before the rest of its group can be. Nobody sees half a
//     group.
//  3. Words of tombstones become markers. Not before: behind a marker a reader
//     would go on and find the key absent while the rest of the group still
//     looks old.
//
// # Loading
//
// An index begins empty. Load fills it with what the hints of the segments say,
// without a look at a record; Merge then adds the rest, which may be older than
// what is there. The records that Load was told of have not been verified. So
// Merge and the first Snapshot verify them before a key, kind or sequence
// number in them decides anything, and Lookup does so before it hides one.
//
// # What to know
//
//   - Before a segment is detached, Repoint, or for a follower Merge, is called,
//     and no word names the segment any more.
//   - One lock, Index.mu, guards every change: publishing, attaching, the queue of
//     the tree. Readers never take it. No I/O and no code of a caller runs under it
//     but for page faults in mapped records.
//   - The ordered index compares keys in the mappings. Where keys share their
//     first 8 bytes, each comparison looks at two records.
//   - A page that can't be read faults. Callers that run under
//     debug.SetPanicOnFault get a panic out of any method; the lock is released
//     and the index is as it was.
//   - An index never shrinks. Tables beyond 2^31 words in all have fewer hash
//     bits than positions: chains then grow with the number of keys.
package index
