package fuzz

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sabotage is one way to break the engine that the other tests must notice.
type sabotage struct {
	name     string
	file     string
	old, new string // old occurs once in the file
	test     string // which test notices; TestCrash if empty
	pkg      string // where that test is; this package if empty
	race     bool   // it takes the race detector
}

// sabotages, the first of which is tried in every run.
var sabotages = []sabotage{
	{
		name: "a group is not synced",
		file: "db/commit.go",
		old:  "	if sync {\n		if err := db.syncActive()",
		new:  "	if false {\n		if err := db.syncActive()",
	}, {
		name: "a write is published before it is synced",
		file: "db/commit.go",
		old:  "	if sync {\n		if err := db.syncActive()",
		new:  "	if sync {\n		db.index.Publish(db.writer.staged, db.writer.seq)\n		if err := db.syncActive()",
	}, {
		name: "segments are never synced",
		file: "segment/writer.go",
		old:  "	if err := w.seg.file.Datasync(); err != nil {",
		new:  "	if err := error(nil); err != nil {",
	}, {
		name: "a failed sync is tried again",
		file: "segment/writer.go",
		old:  "	if err := w.seg.file.Datasync(); err != nil {",
		new:  "	if w.seg.file.Datasync() == nil {\n	} else if err := w.seg.file.Datasync(); err != nil {",
	}, {
		name: "writing goes on after a failed sync",
		file: "db/commit.go",
		old:  "		db.writer.poison = err\n		return err\n",
		new:  "		return err\n",
	}, {
		name: "a new segment is not synced",
		file: "segment/writer.go",
		old:  "	if err := file.Datasync(); err != nil {\n		return nil, err\n	}\n",
		new:  "",
	}, {
		name: "the name of a new segment is not synced",
		file: "segment/writer.go",
		old:  "	if err := fsys.SyncDir(); err != nil {\n		return nil, err\n	}\n",
		new:  "",
	}, {
		name: "a manifest is not synced",
		file: "db/manifest/commit.go",
		old:  "	return f.Sync()\n",
		new:  "	return nil\n",
	}, {
		name: "the name of a manifest is not synced",
		file: "db/manifest/commit.go",
		old:  "		err = fsys.SyncDir()\n",
		new:  "",
	}, {
		name: "a manifest that an earlier run renamed is not synced",
		file: "db/recover.go",
		old:  "		if err := db.fs.SyncDir(); err != nil {\n			return err\n		}\n",
		new:  "",
	}, {
		name: "the segment is not synced before it is sealed",
		file: "db/rotate.go",
		old:  "	if err := db.syncActive(); err != nil {\n		return err\n	}\n",
		new:  "",
	}, {
		name: "a short write is ignored",
		file: "segment/writer.go",
		old:  "		off += int64(n)\n		vec = advance(vec, n)\n",
		new:  "		return nil\n",
	}, {
		name: "writing goes on after a manifest of unknown outcome",
		file: "db/rotate.go",
		old:  "		db.writer.poison = err\n",
		new:  "",
	}, {
		name: "a segment that a manifest of unknown outcome names is removed",
		file: "db/rotate.go",
		old:  "	if db.manifests.OutcomeKnown() {\n",
		new:  "	if true {\n",
	}, {
		name: "durableTo runs ahead",
		file: "segment/writer.go",
		old:  "		r.DurableTo = w.seg.synced.Load()",
		new:  "		r.DurableTo = r.Offset",
	}, {
		name: "half a batch is accepted",
		file: "segment/tail.go",
		old:  "			return t, false\n		}\n		t.Valid = r.End",
		new:  "			return t, true\n		}\n		t.Valid = r.End",
	}, {
		name: "values of the tail are not verified",
		file: "segment/tail.go",
		old:  " || first.VerifyValue() != nil {",
		new:  " {",
	}, {
		name: "the tail is sealed where it lies",
		file: "db/recover.go",
		old:  "	if tail.Valid < tail.Proven {\n",
		new:  "	if tail.Valid >= tail.Proven {\n		tail.Proven = tail.Valid\n	} else {\n",
	}, {
		name: "the tail is dropped",
		file: "db/recover.go",
		old:  "	if tail.Valid < tail.Proven {\n",
		new:  "	if tail.Valid >= tail.Proven {\n		tail.Valid = tail.Proven\n	} else {\n",
	}, {
		name: "the copied tail is not synced",
		file: "db/recover.go",
		old:  "	if err := errors.Join(w.Flush(nil), w.Trim(), w.Sync()); err != nil {\n",
		new:  "	if err := errors.Join(w.Flush(nil), w.Trim()); err != nil {\n",
	}, {
		name: "sequence numbers of a torn tail are used again",
		file: "db/recover.go",
		old:  "	db.noteSeq(tail.MaxSeq)\n",
		new:  "	for r, err := range seg.Records(segment.HeaderSize, tail.Valid) {\n		if err == nil {\n			db.noteSeq(r.Seq)\n		}\n	}\n",
	}, {
		name: "all files have the same salt",
		file: "segment/header.go",
		old:  "	return binary.LittleEndian.Uint64(b[:])",
		new:  "	return 1",
	}, {
		name: "the record loaded last wins",
		file: "index/publish.go",
		old:  "	return c.Seq > there.Seq || there.Seq > x.newest",
		new:  "	return true",
	}, {
		name: "compaction drops every tombstone",
		file: "db/compact.go",
		old:  "		return c.oldest < r.Seq, nil\n",
		new:  "		return false, nil\n",
	}, {
		name: "the output of compaction is not synced",
		file: "db/compact.go",
		old:  "errors.Join(readBack(w), w.Trim(), w.Sync())",
		new:  "errors.Join(readBack(w), w.Trim())",
	}, {
		name: "the inputs of compaction go before the manifest",
		file: "db/compact.go",
		old:  "	if err := c.editManifest(); err != nil {\n",
		new:  "	for _, in := range c.inputs {\n		c.db.fs.Remove(in.ID().FileName())\n	}\n	if err := c.editManifest(); err != nil {\n",
	}, {
		name: "compaction removes what something not durable replaced",
		file: "db/compact.go",
		old:  "	if err := c.db.Sync(); err != nil {\n		return err\n	}\n",
		new:  "",
	}, {
		name: "compaction ignores the dead records of other segments",
		file: "db/compact.go",
		old:  "		if !e.Active && !c.isInput(e.ID) {\n",
		new:  "		if !e.Active && !c.isInput(e.ID) && db.index.Usage(db.index.Segments().Find(e.ID)).Records > 0 {\n",
		test: "TestCompactionOrders",
		pkg:  "db",
	}, {
		name: "index entries move whatever they name",
		file: "index/repoint.go",
		old:  "	pos := t.locate(h, m.Old)\n",
		new:  "	pos := x.find(h, m.Key).pos\n",
		test: "TestRepoint",
		pkg:  "index",
	}, {
		name: "inputs go before the ordered index has moved",
		file: "db/compact.go",
		old:  "	c.countBlobs()\n	return c.repoint()\n",
		new:  "	c.countBlobs()\n	for _, in := range c.inputs {\n		c.db.retire(in.ID())\n	}\n	return c.repoint()\n",
		test: "TestCompactBesideReaders",
		pkg:  "db",
	}, {
		name: "index entries move without the lock",
		file: "index/repoint.go",
		old:  "	stub, _ := x.keys.slots.stub(m.Old)\n	size := x.keys.slots.size(m.Old)\n",
		new: "	stub, _ := x.keys.slots.stub(m.Old)\n	size := x.keys.slots.size(m.Old)\n	x.mu.Unlock()\n	for range 20 {\n" +
			"		others := make(chan bool)\n		go close(others)\n		<-others\n	}\n	x.mu.Lock()\n",
		test: "TestRepointBesidePublish",
		pkg:  "index",
	}, {
		name: "compaction copies what it has not verified",
		file: "db/compact.go",
		old:  "	if err := r.VerifyValue(); err != nil {\n",
		new:  "	if err := r.VerifyValue(); false {\n",
		test: "TestCompactDamaged",
		pkg:  "db",
	}, {
		name: "compaction does not read back what it has written",
		file: "db/compact.go",
		old:  "errors.Join(readBack(w), w.Trim(), w.Sync())",
		new:  "errors.Join(w.Trim(), w.Sync())",
		test: "TestDamagedCopy",
		pkg:  "db",
	}, {
		name: "large values that were copied do not count as named",
		file: "db/compact.go",
		old:  "		c.db.blobs.count(&c.kept[i], 1)\n",
		new:  "		_ = i\n",
		test: "TestCompactBlobs",
		pkg:  "db",
	}, {
		name: "writing goes on after a compaction was cut off",
		file: "db/compact.go",
		old:  "		c.db.poison(fmt.Errorf(\"a compaction was cut off: %w\", err))\n",
		new:  "		_ = fmt.Errorf\n",
		test: "TestPageLostUnderCompaction",
		pkg:  "db",
	}, {
		name: "blocks of a hint are not verified",
		file: "segment/hint.go",
		old:  "	if headSum(b, h.off, h.salt) != sum {\n",
		new:  "	if false {\n",
		test: "TestDamageHinted",
	}, {
		name: "the end of a hint is not verified",
		file: "segment/hint.go",
		old:  "	if headSum(b, off, salt) != le.Uint64(b) {\n",
		new:  "	if false {\n",
		test: "TestHintDamage",
		pkg:  "segment",
	}, {
		name: "a hint serves another history of its segment",
		file: "segment/hint.go",
		old:  " || h.footer.length != s.Len() || h.footer.tally != want {\n",
		new:  " {\n",
		test: "TestDamageHintHistory",
	}, {
		name: "the sum of the segment does not bind its hint",
		file: "segment/hint.go",
		old:  " || h.footer.tally != want {\n",
		new:  " {\n",
		test: "TestHintIsBound",
		pkg:  "segment",
	}, {
		name: "a hint is believed that turns out to be of no use",
		file: "db/hint.go",
		old:  "	extents, err := c.hint.Extents()\n	if err != nil {\n",
		new:  "	extents, err := c.hint.Extents()\n	if false {\n",
		test: "TestHintsMakeTheSameStore",
		pkg:  "db",
	}, {
		name: "the oldest record of all hints wins",
		file: "db/hint.go",
		old:  "		return a.Seq > b.Seq\n",
		new:  "		return a.Seq < b.Seq\n",
		test: "TestHintsMakeTheSameStore",
		pkg:  "db",
	}, {
		name: "what a hint tells of keeps older records out unproven",
		file: "index/publish.go",
		old:  "		if err := x.prove(changes[i].Key); err != nil {\n",
		new:  "		if err := x.prove(changes[i].Key); false {\n",
		test: "TestMergeVerifies",
		pkg:  "index",
	}, {
		name: "what a hint tells of is read unproven",
		file: "db/read.go",
		old:  "	r, err := hit.Segment.Read(hit.Offset)\n	if err != nil {\n		return r, err\n	}\n	if db.opts.Verify == VerifyNever {\n",
		new:  "	r, err := hit.Segment.Peek(hit.Offset)\n	if err != nil {\n		return r, err\n	}\n	if db.opts.Verify == VerifyNever {\n",
		test: "TestHintIsProvenByTheRecord",
		pkg:  "db",
	}, {
		name: "hints outlive their segments",
		file: "db/rotate.go",
		old:  "			db.fs.Remove(id.HintName())\n",
		new:  "",
		test: "TestHintsComeAndGo",
		pkg:  "db",
	}, {
		name: "a retired mapping leaves its addresses to the next one",
		file: "segment/vfs/map_mmap.go",
		old:  "	if _, err := unix.MmapPtr(-1, 0, r.pointer(), uintptr(r.size), prot, flags); err != nil {\n",
		new:  "	if err := unix.MunmapPtr(r.pointer(), uintptr(r.size)); err != nil {\n",
		test: "TestStaleSliceFaults",
		pkg:  "segment/vfs",
	}, {
		name: "a file that another process reads is made shorter",
		file: "segment/vfs/bury_linux.go",
		old:  "err == nil && isAlone(own)",
		new:  "err == nil",
		test: "TestBuryBesideOthers",
		pkg:  "segment/vfs",
	}, {
		name: "a file that sendfile has queued is made shorter",
		file: "segment/vfs/bury_linux.go",
		old:  "!h.lent.Load() && mayShrink(f)",
		new:  "mayShrink(f)",
		test: "TestBuryWhileQueued",
		pkg:  "segment/vfs",
	}, {
		name: "what moves to memory lacks its last page",
		file: "segment/vfs/migrate_linux.go",
		old:  "	memory := unsafe.Slice((*byte)(p), size)\n",
		new:  "	memory := unsafe.Slice((*byte)(p), size)\n	n -= (n-1)%int64(os.Getpagesize()) + 1\n",
		test: "TestMigrate|TestMigrateLetsGo",
		pkg:  "segment/vfs",
	}, {
		name: "a large value that moved to memory is looked for on disk",
		file: "segment/blob.go",
		old:  "	b.moved = f.clone()\n",
		new:  "",
		test: "TestPinnedIsMoved",
		pkg:  "db",
	}, {
		name: "a Value that was dropped holds nothing",
		file: "db/value.go",
		old:  "db.handles.add(kindValue, src.record.Key, v.held)",
		new:  "db.handles.add(kindValue, src.record.Key, new(valueHold))",
		test: "TestHeldAcrossCompactions",
		pkg:  "db",
	}, {
		name: "a snapshot that was dropped holds nothing",
		file: "db/snapshot.go",
		old:  "db.handles.add(kindSnapshot, nil, s.held)",
		new:  "db.handles.add(kindSnapshot, nil, new(snapshotHold))",
		test: "TestHeldAcrossCompactions",
		pkg:  "db",
	}, {
		name: "a snapshot that expires lets go of what it gave out",
		file: "db/hold.go",
		old:  "h.lent[seg.Slot()].Load() {\n",
		new:  "h.lent[seg.Slot()].Load() && false {\n",
		test: "TestSnapshotExpires|TestHeldAcrossCompactions",
		pkg:  "db",
	}, {
		name: "View does not hold the segment",
		file: "db/read.go",
		old:  "	err = fn(r.Value)\n	runtime.KeepAlive(hit.Segment)\n",
		new:  "	_ = hit\n	err = fn(r.Value)\n",
		test: "TestCollectionBetweenSteps",
		pkg:  "db",
		race: true,
	}, {
		name: "durableTo is not written",
		file: "segment/writer.go",
		old:  "		r.DurableTo = w.seg.synced.Load()",
		new:  "		r.DurableTo = 0",
		test: "TestDamageBits",
	}, {
		name: "recovery does not look behind the first bad record",
		file: "segment/segment.go",
		old:  "	t.probe(data, t.Valid, s.header.Salt)\n",
		new:  "",
		test: "TestDamageBits",
	}, {
		name: "a follower does not look behind the first bad record",
		file: "segment/segment.go",
		old:  "	t.probe(s.mem[:size], t.Valid, s.header.Salt)\n",
		new:  "",
		test: "TestDamageBits",
	}, {
		name: "the offset is not part of the checksum",
		file: "segment/format.go",
		old:  "	d.ResetWithSeed(salt ^ uint64(off)*0x9e3779b97f4a7c15)\n",
		new:  "	d.ResetWithSeed(salt)\n",
		test: "TestDamageRecords",
	}, {
		name: "Get does not verify",
		file: "segment/verify.go",
		old:  "	if err := found.verify(0, p.Size, false, found.inMemory); err != nil {\n",
		new:  "	if err := found.verify(0, p.Size, false, found.inMemory); false {\n",
		test: "TestDamageBits",
	}, {
		name: "an older manifest takes the place of a damaged one",
		file: "db/manifest/read.go",
		old:  "		return nil, &segment.CorruptError{Path: path, Reason: err.Error()}\n",
		new:  "		var older []string\n		for _, n := range names {\n			if n != segment.ManifestName(gen) {\n				older = append(older, n)\n			}\n		}\n		return Read(fsys, older)\n",
		test: "TestDamageFiles",
	}, {
		name: "the second image of a manifest is not read",
		file: "db/manifest/format.go",
		old:  "err2 == nil {",
		new:  "err2 == nil && false {",
		test: "TestDamageFiles",
	}, {
		name: "a follower shows what is not synced",
		file: "db/follow.go",
		old:  "		return proven, nil\n",
		new:  "		return tail.Valid, nil\n",
	}, {
		name: "a blob is not synced",
		file: "segment/blob_writer.go",
		old:  "errors.Join(w.file.Trim(), w.file.Datasync())",
		new:  "w.file.Trim()",
	}, {
		name: "the name of a blob is not synced",
		file: "segment/blob_writer.go",
		old:  "errors.Join(w.fs.SyncDir(), w.file.Close())",
		new:  "w.file.Close()",
	}, {
		name: "a named segment is cut off",
		file: "segment/vfs/file_linux.go",
		old:  "unix.Ftruncate(fd, size)",
		new:  "unix.Ftruncate(fd, size-8)",
		test: "TestKill",
	}, {
		name: "two writers at a time",
		file: "segment/vfs/lock_unix.go",
		old:  "unix.LOCK_EX |",
		new:  "unix.LOCK_SH |",
		test: "TestLockSpelling|TestLockRace",
	}, {
		name: "half a batch is visible",
		file: "index/publish.go",
		old:  "	x.prepare(changes)\n",
		new:  "	x.prepare(changes)\n	x.visible.Store(max(visible, x.visible.Load()))\n",
		test: "TestNobodySeesHalfAGroup|TestReaderWaits",
		pkg:  "index",
	}, {
		name: "puts take the room that deletes need on a full disk",
		file: "db/reserve.go",
		old:  "		return db.writer.active.Reserve(db.reserveSize(), db.mayPut)\n",
		new:  "		return db.writer.active.Reserve(0, db.mayPut)\n",
		test: "TestPutsLeaveRoomForDeletes",
		pkg:  "db",
	}, {
		name: "no spare segment",
		file: "db/reserve.go",
		old:  "	if !db.writer.active.HalfFull(size) {\n",
		new:  "	if true {\n",
		test: "TestDeletesOnFullDisk",
		pkg:  "db",
	}, {
		name: "puts leave no room for compaction",
		file: "db/room.go",
		old:  "	_, err := db.hold()\n	return err\n",
		new:  "	return nil\n",
		test: "TestFullDiskGivesSpaceBack",
		pkg:  "db",
	}, {
		name: "segments on a full disk are as large as ever",
		file: "db/room.go",
		old:  "	return min(max(db.free(0)/segmentPart, ",
		new:  "	return max(max(db.free(0)/segmentPart, ",
		test: "TestFullDiskGivesSpaceBack",
		pkg:  "db",
	}, {
		name: "compaction does not use the blocks that are held for it",
		file: "db/room.go",
		old:  "	if !c.db.scarce() {\n",
		new:  "	if true {\n",
		test: "TestFullDiskGivesSpaceBack",
		pkg:  "db",
	}, {
		name: "compaction sets more aside than it writes",
		file: "segment/copy.go",
		old:  "	if err := w.ReserveStaged(may); err != nil {\n",
		new:  "	if err := w.Reserve(0, may); err != nil {\n",
		test: "TestFullDiskOfLargeValues",
		pkg:  "db",
	}, {
		name: "what there is no room to copy stands in the way",
		file: "db/pick.go",
		old:  "	s.drop(func(c candidate) bool { return c.need > room })\n",
		new:  "",
		test: "TestFullDiskGivesSpaceBack|TestCompactWithoutRoom",
		pkg:  "db",
	}, {
		name: "Compact takes what a pause has ended for done",
		file: "db/pick.go",
		old:  "	if errors.Is(part.failed, errPaused) {\n		j.again(part)\n",
		new:  "	if errors.Is(part.failed, errPaused) {\n",
		test: "TestPauseDuringCompact",
		pkg:  "db",
	}, {
		name: "Compact forgets what there was no room for",
		file: "db/pick.go",
		old:  "	db.compactor.short = room < most\n",
		new:  "	db.compactor.short = !slices.ContainsFunc(s.candidates, func(c candidate) bool { return c.need <= room })\n",
		test: "TestCompactWithoutRoomForSome",
		pkg:  "db",
	}, {
		name: "compaction uses up what deletes need on a full disk",
		file: "db/manifest/owner.go",
		old:  "	if err == nil && ready {\n",
		new:  "	if ready && false {\n",
		test: "TestCompactWithoutRoom",
		pkg:  "db",
	}, {
		name: "a segment goes unread though tombstones in it are needed",
		file: "db/compact.go",
		old:  "db.index.Usage(seg) == index.Usage{} && len(seg.Blobs()) == 0\n",
		new:  "db.index.Usage(seg).Records == index.Usage{}.Records\n",
		test: "TestCompactionOrders|TestCompactUnread",
		pkg:  "db",
	}, {
		name: "a record is dropped if nobody can tell whether it is needed",
		file: "db/compact.go",
		old:  "		case err != nil:\n			return false, err\n",
		new:  "		case err != nil:\n			return false, nil\n",
		test: "TestCompactBesideDamage|TestDeletedBesideDamage",
		pkg:  "db",
	}, {
		name: "a verified reference passes for a verified blob",
		file: "db/value.go",
		old:  "hit.Verified() && !p.Chunked()",
		new:  "hit.Verified()",
		test: "TestDamageBits",
	}, {
		name: "a newer record is taken for a torn tail",
		file: "db/follow.go",
		old:  "	if tail.Newer != nil {",
		new:  "	if false {",
		test: "TestBadNewerRecord",
	}, {
		name: "what can't be read is taken for a leftover",
		file: "db/recover.go",
		old:  "		return nil, err // what can't be read may be the proof\n",
		new:  "		return nil, nil\n",
		test: "TestLostManifest",
		pkg:  "db",
	}, {
		name: "leftovers are removed before all is known to be whole",
		file: "db/recover.go",
		old:  "	if err := db.loadSealed(m); err != nil {\n",
		new:  "	db.removeStrays(m, names)\n	if err := db.loadSealed(m); err != nil {\n",
		test: "TestDamageBits|TestBadRandom",
	}, {
		name: "the originals of a repair that was cut off are removed",
		file: "db/recover.go",
		old:  "	if m.Repaired {\n",
		new:  "	if false {\n",
		test: "TestRepairCutOffThenOpen",
		pkg:  "db",
	}, {
		name: "a snapshot of a closed store takes what a later run removed for damage",
		file: "db/snapshot.go",
		old:  "	if s.db.opts.ReadOnly || s.db.closed() {\n",
		new:  "	if s.db.opts.ReadOnly {\n",
		test: "TestReadersOutliveStore",
	}, {
		name: "a full disk has no name",
		file: "segment/vfs/space.go",
		old:  "		return fmt.Errorf(\"%w: %w\", ErrNoSpace, err)\n",
		new:  "		return err\n",
		test: "TestErrors",
	},
}

// TestSabotage promises that the other tests are worth something. Method: the
// engine is built with one fault in it, and the campaign must fail. The files
// of the repository are not touched: the compiler reads a changed copy.
func TestSabotage(t *testing.T) {
	if underRace {
		t.Skip("says nothing that it does not say without the race detector")
	}
	list := sabotages[:1]
	if os.Getenv("CROWFLY_SABOTAGE") == "all" {
		list = sabotages
	}
	for _, s := range list {
		t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
			start := time.Now()
			out, failed := s.run(t, s.build(t))
			if !failed {
				t.Errorf("nobody noticed\n%s", out)
			}
			t.Logf("after %v:\n%s", time.Since(start).Round(time.Millisecond), firstLines(out, 6))
		})
	}
}

// TestSabotageApplies: every sabotage still fits the engine, so that none is
// left out by a change of the code around it.
func TestSabotageApplies(t *testing.T) {
	for _, s := range sabotages {
		t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) { s.read(t) })
	}
}

// read returns the file to be changed, in which the old text occurs once.
func (s sabotage) read(t *testing.T) (path string, source []byte) {
	path, err := filepath.Abs(filepath.Join("..", s.file))
	if err != nil {
		t.Fatal(err)
	}
	if source, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), s.old); n != 1 {
		t.Fatalf("patch no longer applies: the old text occurs %d times in %s", n, s.file)
	}
	return path, source
}

// build compiles the tests of this package on top of the sabotaged engine.
func (s sabotage) build(t *testing.T) (binary string) {
	path, source := s.read(t)
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), s.old, s.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "fuzz.test")
	args := []string{"test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, fmt.Sprintf("-race=%v", s.race), s.dir()}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// dir is the package whose test notices.
func (s sabotage) dir() string { return "../" + cmp.Or(s.pkg, "fuzz") }

// run lets the sabotaged tests run. Only if they come to an end they have
// noticed anything. A broken engine may want all the memory there is.
func (s sabotage) run(t *testing.T, binary string) (out string, failed bool) {
	const atMost = 2 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), atMost)
	defer cancel()
	test := s.test
	if test == "" {
		test = "TestCrash"
	}
	limit := "4000000"
	if s.race {
		limit = "unlimited" // the detector has much that it does not use
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `ulimit -v `+limit+`; exec "$0" "$@"`,
		binary, "-test.run", "^("+test+")$", "-test.failfast")
	cmd.Dir = s.dir()
	cmd.Env = append(os.Environ(), "CROWFLY_POINTS=200000", "CROWFLY_SEED=0", "CROWFLY_REPLAY=")
	b, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	noticed := strings.Contains(string(b), "--- FAIL: Test")
	return string(b), noticed && ctx.Err() == nil
}

func firstLines(text string, n int) string {
	lines := strings.SplitAfterN(text, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "")
}
