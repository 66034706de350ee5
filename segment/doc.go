// Package segment is bytes on disk. It knows records, not "the latest value".
//
// # A segment file
//
//	offset 0     +---------------------------+
//	             | file header, 64 bytes     |  Header
//	offset 64    +---------------------------+
//	             | record                    |  Record: 48 bytes, key, metadata,
//	             |                           |  value, chunk table
//	             +---------------------------+  every record at a multiple of 8
//	             | record                    |
//	             +---------------------------+
//	             | ...                       |
//	logical end  +---------------------------+
//	             | whatever                  |  never looked at
//	             +---------------------------+
//
// All numbers are little-endian and all padding is zero. Zero is never a
// record: a kind is at least 1. header.go and format.go draw every byte above
// the code that writes it.
//
// # A blob file
//
// A large value may have a file of its own, see blob.go. A record of
// [KindBlobRef] in a segment names it; without one the file is nothing.
//
// # A hint file
//
// What an index must know of a sealed segment lies in a file beside it, so that
// opening a store need not read the segment, see hint.go. It is derived: it may
// be missing, and if anything in it is not as it should be, the segment is
// read instead.
//
// # Life
//
// A segment is *active* while the run that created it appends to it. Then it
// is *sealed*: the manifest has its logical length and it is never written
// again. When its live records have been copied elsewhere it is *retired*: out
// of the manifest and unlinked, but readable for whoever still holds it. A
// named file never gets shorter, since somebody may have it mapped.
//
// # What proves what
//
// The header of every file has a checksum. That of a record covers its header,
// key and metadata, and is seeded with a random number of the file and the
// offset: a record that is stale, belongs elsewhere or was written to the
// wrong place does not verify. Lengths are only bounded, never used, before
// they are proven. The value has a checksum of its own, without seed, which
// copies keep and clients can compute. Values above 1 MiB have one for every
// 256 KiB, so that ranges can be verified alone.
//
// durableTo is what tells damage from a torn tail. Every record says up to
// where the file was known to be synced when it was written. A record that
// does not verify below the largest such offset was durable once and is
// damaged; at or above it, it was never acknowledged. See [Tail].
//
// # Doors to a record
//
// Each way to a record leaves something to be proven by its caller:
//
//	Peek, PeekResident   nothing is proven but that it lies in the segment: for a
//	                     record that was read before. Callers: reads of db whose
//	                     index entry says that it was verified, scans of an ordered
//	                     index, which are checked with the first use of a value, and
//	                     hintWriter, for a record that was just written
//	Read, Records        header, key and metadata are proven, the value is not
//	Record.VerifyValue   the value is proven, all of it
//	Payload.Verify       the chunks of a range are proven, and remembered if asked
//	Payload.Append       a copy is made and the copy is proven
//	Hint                 keys and places are proven to be those of this segment; what
//	                     a hint tells is believed for one purpose, to find a record
//	                     that Read then proves
//
// # Where the rules come from
//
// Checksums that cover the position, and one list of segments that is the
// truth, are answers to bugs that log-structured stores have had in public:
// deleted keys that came back after a merge, tails that recovery took for
// damage or the other way round, and stale blocks that looked valid. A sync
// that failed is never tried again: on ext4, xfs and btrfs the second one
// succeeds although the bytes are gone (Rebello et al., "Can Applications
// Recover from fsync Failures?", USENIX ATC 2020).
package segment
