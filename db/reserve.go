package db

import (
	"slices"

	"github.com/crowfly/crowfly/segment"
)

// A full disk must not keep anybody from deleting. So whatever puts a value
// leaves some room alone that only deletes may use, and it is set aside on the
// disk before it is needed:
//
//	active segment    maxReserve bytes behind the last put, as far as the segment goes
//	spare segment     the same, once the active one is half full
//	next manifest     its file, from the first write on
//
// With these three a full segment can be left for the next one on a full disk.
// Deletes in their turn leave the last of it alone: Close and recovery give
// back what is set aside before they write a manifest, and so find room.
// What compaction needs is another matter, see room.

// maxReserve is the room for deletes in a segment, and maxLast what they leave.
// Small segments have a quarter of theirs, and a quarter of that.
const (
	maxReserve = 1 << 20
	maxLast    = 256 << 10
)

func (db *DB) reserveSize() int64 { return min(maxReserve, db.opts.SegmentSize/4) }

func (db *DB) lastSize() int64 { return min(maxLast, db.reserveSize()/4) }

// puts reports whether a commit stores anything.
func (c *commit) puts() bool {
	return slices.ContainsFunc(c.ops, func(o op) bool { return o.record.Kind != segment.KindDelete })
}

// deletes reports whether a commit is nothing but deletes.
func (c *commit) deletes() bool { return !c.puts() }

// reserve sets disk blocks aside for what is staged, and unless these are
// deletes for the reserve behind it.
func (db *DB) reserve(group []*commit) error {
	if slices.ContainsFunc(group, (*commit).puts) {
		return db.writer.active.Reserve(db.reserveSize(), db.mayPut) // sabotage: reserve-for-deletes
	}
	return db.writer.active.Reserve(db.lastSize(), nil)
}

// prepareNext has everything ready for the next manifest, and for the next
// segment if a group makes the active one more than half full.
func (db *DB) prepareNext(group []*commit) error {
	if err := db.pinnedError(); err != nil {
		return err
	}
	if err := db.manifests.Prepare(); err != nil {
		return err
	}
	size := int64(0)
	for _, c := range group {
		size += c.size
	}
	if !db.writer.active.HalfFull(size) { // sabotage: spare-segment
		return nil
	}
	if db.writer.spare == nil {
		w, err := db.makeSegment(db.segmentSize())
		if err != nil {
			return err
		}
		db.writer.spare = w
	}
	return db.writer.spare.Reserve(db.reserveSize(), db.mayPut)
}

// dropSpare gives back the spare segment. If it stays behind it is nothing to
// the next Open. The file of the next manifest is left for the last edit.
func (db *DB) dropSpare() {
	if db.writer.spare != nil {
		db.writer.spare.Trim() // at once: a reader that holds the segment keeps the file
		db.retire(db.writer.spare.Segment().ID())
		db.writer.spare = nil
	}
}
