package db

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Limits of one store, in bytes unless said otherwise.
const (
	MaxKey   = segment.MaxKey
	MaxValue = segment.MaxValueLen

	// MaxBatchValue bounds a value in a Batch. A larger one is put alone.
	MaxBatchValue = 48 << 20

	maxBatchBytes   = segment.MaxBatchBytes
	maxBatchRecords = 65536

	minSpaceTarget        = 1.05
	defaultSpaceTarget    = 1.3
	defaultCompactionRate = 64 << 20

	minBlobSize     = 4 << 10
	defaultBlobSize = 16 << 20
	maxBlobSize     = 32 << 20

	minSegmentSize     = 4 << 10
	defaultSegmentSize = 64 << 20
	maxSegmentSize     = segment.MaxStart

	defaultMaxPinned = 256 << 20
)

// SyncMode says when a write is acknowledged.
type SyncMode int

const (
	// SyncDefault is SyncAlways for a store, and the store's mode for a put.
	SyncDefault SyncMode = iota

	// SyncAlways acknowledges a write when it is on disk: it survives the
	// death of the process, of the system and of the power.
	SyncAlways

	// SyncInterval acknowledges a write when the kernel has it, and syncs
	// at least every Options.SyncEvery. It survives the death of the process.
	SyncInterval

	// SyncNever is SyncInterval without the timer. The disk is synced when
	// a segment is full, by Sync and by Close.
	SyncNever
)

// VerifyMode says when the zero-copy reads View, Value and those of the server
// check a value against its checksum. Get always does.
type VerifyMode int

const (
	VerifyFirst  VerifyMode = iota // on the first use of the value after Open
	VerifyAlways                   // on every use
	VerifyNever                    // not at all
)

// Options for Open. The zero value is a good default, and the zero value of each
// field stands for its default. Open refuses any other value that it can't obey
// with ErrInvalid and the name of the field. A read-only store checks the options
// of a writer too and has no use for them.
type Options struct {
	// ReadOnly opens without a lock and without writing anything, also
	// beside a writer in another process, which it then follows.
	ReadOnly bool

	Sync      SyncMode
	SyncEvery time.Duration // for SyncInterval, 100 ms by default

	// SegmentSize is how long a segment file may get, 4 KiB to 256 MiB,
	// 64 MiB by default. A larger batch gets a file of its own size.
	SegmentSize int64

	// BlobSize is the size from which a value that is put alone gets a file of
	// its own, 4 KiB to 32 MiB, 16 MiB by default. A smaller one is in memory
	// until it is committed.
	BlobSize int64

	Verify VerifyMode

	// SpaceTarget is how many times the live bytes the files may take before
	// compaction gives space back, 1.3 by default, at least 1.05.
	SpaceTarget float64

	// CompactionRate bounds how many bytes a second compaction in the
	// background reads, 64 MiB by default. Negative means no limit.
	CompactionRate int64

	// MaxPinned is how many bytes of memory may hold what slow readers keep of
	// files that were removed, 256 MiB by default, none if negative. Beyond
	// it snapshots expire, the oldest first, and if that is not enough puts
	// fail with ErrPinnedSpace until readers let go.
	MaxPinned int64

	// Collect forces a collection, which lets go of removed files that nobody
	// reads any more, and of descriptors when these have run out; by default
	// runtime.GC. It is called rarely, and by Close. A program that wants none
	// has it do nothing, at the price of disk space and descriptors.
	Collect func()

	// FS is the directory to use instead of the one named in Open, for tests.
	FS vfs.FS
}

// PutOptions for one Put, Delete or Apply.
type PutOptions struct {
	// Metadata describes the value of a put.
	Metadata *Metadata

	// IfAbsent makes the write fail with ErrPrecondition if the key has a
	// value, IfMatch if it has none or another version. They are judged at
	// the moment of the write.
	IfAbsent bool
	IfMatch  *Version

	// Sync overrides the mode of the store. Batches that are committed
	// together with one that asks for SyncAlways are synced with it.
	Sync SyncMode
}

// Metadata describes a value.
type Metadata = segment.Metadata

// Pair is a name with its value in Metadata.
type Pair = segment.Pair

// ClampTime returns t or, if Metadata can't hold it, the nearest time that it can:
// it holds the years from 1678 to 2261, to the nanosecond.
func ClampTime(t time.Time) time.Time {
	first, last := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)
	switch {
	case t.IsZero():
		return t
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// optionError is about an option that has a value which can't be obeyed.
func optionError(name string, value any, want string) error {
	return invalid{fmt.Errorf("%s is %v, it must be %s", name, value, want)}
}

// check returns what is wrong with the options.
func (o *Options) check() error {
	switch {
	case o.Sync < SyncDefault || o.Sync > SyncNever:
		return optionError("Options.Sync", int(o.Sync), "SyncDefault, SyncAlways, SyncInterval or SyncNever")
	case o.SyncEvery < 0:
		return optionError("Options.SyncEvery", o.SyncEvery, "a positive time")
	case o.SegmentSize != 0 && (o.SegmentSize < minSegmentSize || o.SegmentSize > maxSegmentSize):
		return optionError("Options.SegmentSize", o.SegmentSize, fmt.Sprintf("%d to %d bytes", minSegmentSize, maxSegmentSize))
	case o.BlobSize != 0 && (o.BlobSize < minBlobSize || o.BlobSize > maxBlobSize):
		return optionError("Options.BlobSize", o.BlobSize, fmt.Sprintf("%d to %d bytes", minBlobSize, maxBlobSize))
	case o.Verify < VerifyFirst || o.Verify > VerifyNever:
		return optionError("Options.Verify", int(o.Verify), "VerifyFirst, VerifyAlways or VerifyNever")
	case o.SpaceTarget != 0 && !(o.SpaceTarget >= minSpaceTarget && o.SpaceTarget <= math.MaxFloat64):
		return optionError("Options.SpaceTarget", o.SpaceTarget, fmt.Sprintf("a number from %v on", minSpaceTarget))
	}
	return nil
}

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.Sync == SyncDefault {
		d.Sync = SyncAlways
	}
	if d.SyncEvery == 0 {
		d.SyncEvery = 100 * time.Millisecond
	}
	if d.SegmentSize == 0 {
		d.SegmentSize = defaultSegmentSize
	}
	if d.BlobSize == 0 {
		d.BlobSize = defaultBlobSize
	}
	if d.MaxPinned == 0 {
		d.MaxPinned = defaultMaxPinned
	}
	if d.Collect == nil {
		d.Collect = runtime.GC
	}
	if d.SpaceTarget == 0 {
		d.SpaceTarget = defaultSpaceTarget
	}
	if d.CompactionRate == 0 {
		d.CompactionRate = defaultCompactionRate
	}
	return d
}
