package fuzz

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sabotage is one way to break the engine that the other tests must notice. A
// comment in the engine, `// sabotage: NAME` behind a statement or on a line of its
// own before it, marks the statement that keeps the rule.
type sabotage struct {
	name string
	at   string // the marker
	edit string // what takes the place of the statement, see marked.edited
	test string // which test notices; TestCrash if empty
	pkg  string // where that test is; this package if empty
	race bool   // it takes the race detector
}

// sabotages, the first of which is tried in every run.
var sabotages = []sabotage{
	{
		name: "a group is not synced",
		at:   "sync-group",
		edit: "if false $body",
	}, {
		name: "a write is published before it is synced",
		at:   "publish-after-sync",
		edit: `db.index.Publish(db.writer.staged, db.writer.seq)
$stmt`,
	}, {
		name: "segments are never synced",
		at:   "sync-segment",
		edit: "if err := error(nil); err != nil $body",
	}, {
		name: "a failed sync is tried again",
		at:   "sync-segment",
		edit: `if w.seg.file.Datasync() == nil {
} else $stmt`,
	}, {
		name: "writing goes on after a failed sync",
		at:   "poison-after-sync",
		edit: "",
	}, {
		name: "a new segment is not synced",
		at:   "sync-new-segment",
		edit: "",
	}, {
		name: "the name of a new segment is not synced",
		at:   "name-new-segment",
		edit: "",
	}, {
		name: "a manifest is not synced",
		at:   "sync-manifest",
		edit: "return nil",
	}, {
		name: "the name of a manifest is not synced",
		at:   "name-manifest",
		edit: "",
	}, {
		name: "a manifest that an earlier run renamed is not synced",
		at:   "sync-found-manifest",
		edit: "",
	}, {
		name: "the segment is not synced before it is sealed",
		at:   "sync-before-seal",
		edit: "",
	}, {
		name: "a short write is ignored",
		at:   "whole-write",
		edit: "return nil",
	}, {
		name: "writing goes on after a manifest of unknown outcome",
		at:   "poison-unknown-manifest",
		edit: "",
	}, {
		name: "a segment that a manifest of unknown outcome names is removed",
		at:   "keep-unknown-segment",
		edit: "if true $body",
	}, {
		name: "durableTo runs ahead",
		at:   "durable-to",
		edit: "r.DurableTo = r.Offset",
	}, {
		name: "half a batch is accepted",
		at:   "whole-batch",
		edit: "return t, true",
	}, {
		name: "values of the tail are not verified",
		at:   "verify-tail",
		edit: "if err != nil || first.Flags&FlagFirst == 0 $body",
	}, {
		name: "the tail is sealed where it lies",
		at:   "copy-tail",
		edit: `if tail.Valid >= tail.Proven {
tail.Proven = tail.Valid
} else $body`,
	}, {
		name: "the tail is dropped",
		at:   "copy-tail",
		edit: `if tail.Valid >= tail.Proven {
tail.Valid = tail.Proven
} else $body`,
	}, {
		name: "the copied tail is not synced",
		at:   "sync-copied-tail",
		edit: "if err := errors.Join(w.Flush(nil), w.Trim()); err != nil $body",
	}, {
		name: "sequence numbers of a torn tail are used again",
		at:   "note-torn-seq",
		edit: `for r, err := range seg.Records(segment.HeaderSize, tail.Valid) {
if err == nil {
db.noteSeq(r.Seq)
}
}`,
	}, {
		name: "all files have the same salt",
		at:   "random-salt",
		edit: "return 1",
	}, {
		name: "the record loaded last wins",
		at:   "newest-wins",
		edit: "return true",
	}, {
		name: "compaction drops every tombstone",
		at:   "keep-tombstone",
		edit: "return false, nil",
	}, {
		name: "the output of compaction is not synced",
		at:   "sync-output",
		edit: "if err := errors.Join(readBack(w), w.Trim()); err != nil $body",
	}, {
		name: "the inputs of compaction go before the manifest",
		at:   "sync-before-edit",
		edit: `$stmt
for _, in := range c.inputs {
c.db.fs.Remove(in.ID().FileName())
}`,
	}, {
		name: "compaction removes what something not durable replaced",
		at:   "sync-before-edit",
		edit: "",
	}, {
		name: "compaction ignores the dead records of other segments",
		at:   "count-dead-outside",
		edit: "if !e.Active && !c.isInput(e.ID) && db.index.Usage(db.index.Segments().Find(e.ID)).Records > 0 $body",
		test: "TestCompactionOrders",
		pkg:  "db",
	}, {
		name: "index entries move whatever they name",
		at:   "repoint-same",
		edit: "pos := x.find(h, m.Key).pos",
		test: "TestRepoint",
		pkg:  "index",
	}, {
		name: "inputs go before the ordered index has moved",
		at:   "repoint-before-retire",
		edit: `$stmt
for _, in := range c.inputs {
c.db.retire(in.ID())
}`,
		test: "TestCompactBesideReaders",
		pkg:  "db",
	}, {
		name: "index entries move without the lock",
		at:   "repoint-locked",
		edit: `$stmt
x.mu.Unlock()
for range 20 {
others := make(chan bool)
go close(others)
<-others
}
x.mu.Lock()`,
		test: "TestRepointBesidePublish",
		pkg:  "index",
	}, {
		name: "compaction copies what it has not verified",
		at:   "verify-copied",
		edit: "if err := r.VerifyValue(); false $body",
		test: "TestCompactDamaged",
		pkg:  "db",
	}, {
		name: "compaction does not read back what it has written",
		at:   "sync-output",
		edit: "if err := errors.Join(w.Trim(), w.Sync()); err != nil $body",
		test: "TestDamagedCopy",
		pkg:  "db",
	}, {
		name: "large values that were copied do not count as named",
		at:   "count-copied-blobs",
		edit: "_ = i",
		test: "TestCompactBlobs",
		pkg:  "db",
	}, {
		name: "writing goes on after a compaction was cut off",
		at:   "poison-cut-compaction",
		edit: "_ = fmt.Errorf",
		test: "TestPageLostUnderCompaction",
		pkg:  "db",
	}, {
		name: "blocks of a hint are not verified",
		at:   "verify-hint-block",
		edit: "if false $body",
		test: "TestDamageHinted",
	}, {
		name: "the end of a hint is not verified",
		at:   "verify-hint-end",
		edit: "if false $body",
		test: "TestHintDamage",
		pkg:  "segment",
	}, {
		name: "a hint serves another history of its segment",
		at:   "hint-history",
		edit: "if header.Salt != h.salt $body",
		test: "TestDamageHintHistory",
	}, {
		name: "the sum of the segment does not bind its hint",
		at:   "hint-history",
		edit: "if header.Salt != h.salt || h.footer.length != s.Len() $body",
		test: "TestHintIsBound",
		pkg:  "segment",
	}, {
		name: "a hint is believed that turns out to be of no use",
		at:   "believe-hint",
		edit: "if false $body",
		test: "TestHintsMakeTheSameStore",
		pkg:  "db",
	}, {
		name: "the oldest record of all hints wins",
		at:   "newest-hint-wins",
		edit: "return a.Seq < b.Seq",
		test: "TestHintsMakeTheSameStore",
		pkg:  "db",
	}, {
		name: "what a hint tells of keeps older records out unproven",
		at:   "prove-hinted",
		edit: "if err := x.prove(changes[i].Key); false $body",
		test: "TestMergeVerifies",
		pkg:  "index",
	}, {
		name: "what a hint tells of is read unproven",
		at:   "read-proven",
		edit: "r, err := hit.Segment.Peek(hit.Offset)",
		test: "TestHintIsProvenByTheRecord",
		pkg:  "db",
	}, {
		name: "hints outlive their segments",
		at:   "remove-hint",
		edit: "",
		test: "TestHintsComeAndGo",
		pkg:  "db",
	}, {
		name: "a retired mapping leaves its addresses to the next one",
		at:   "keep-addresses",
		edit: "if err := unix.MunmapPtr(r.pointer(), uintptr(r.size)); err != nil $body",
		test: "TestStaleSliceFaults",
		pkg:  "segment/vfs",
	}, {
		name: "a file that another process reads is made shorter",
		at:   "shrink-alone",
		edit: "if info, err := own.Stat(); err == nil $body",
		test: "TestBuryBesideOthers",
		pkg:  "segment/vfs",
	}, {
		name: "a file that sendfile has queued is made shorter",
		at:   "shrink-unlent",
		edit: `case mayShrink(f):
go shrink(f)`,
		test: "TestBuryWhileQueued",
		pkg:  "segment/vfs",
	}, {
		name: "what moves to memory lacks its last page",
		at:   "migrate-all",
		edit: `$stmt
n -= (n-1)%int64(os.Getpagesize()) + 1`,
		test: "TestMigrate|TestMigrateLetsGo",
		pkg:  "segment/vfs",
	}, {
		name: "a large value that moved to memory is looked for on disk",
		at:   "remember-moved",
		edit: "",
		test: "TestPinnedIsMoved",
		pkg:  "db",
	}, {
		name: "a Value that was dropped holds nothing",
		at:   "value-holds",
		edit: "v.handle = db.handles.add(kindValue, src.record.Key, new(valueHold))",
		test: "TestHeldAcrossCompactions",
		pkg:  "db",
	}, {
		name: "a snapshot that was dropped holds nothing",
		at:   "snapshot-holds",
		edit: "s.handle = db.handles.add(kindSnapshot, nil, new(snapshotHold))",
		test: "TestHeldAcrossCompactions",
		pkg:  "db",
	}, {
		name: "a snapshot that expires lets go of what it gave out",
		at:   "lent-is-kept",
		edit: "if h.lent[seg.Slot()].Load() && false $body",
		test: "TestSnapshotExpires|TestHeldAcrossCompactions",
		pkg:  "db",
	}, {
		name: "View does not hold the segment",
		at:   "keep-segment",
		edit: "_ = hit",
		test: "TestCollectionBetweenSteps",
		pkg:  "db",
		race: true,
	}, {
		name: "durableTo is not written",
		at:   "durable-to",
		edit: "r.DurableTo = 0",
		test: "TestDamageBits",
	}, {
		name: "recovery does not look behind the first bad record",
		at:   "probe-tail",
		edit: "",
		test: "TestDamageBits",
	}, {
		name: "a follower does not look behind the first bad record",
		at:   "probe-followed-tail",
		edit: "",
		test: "TestDamageBits",
	}, {
		name: "the offset is not part of the checksum",
		at:   "seed-offset",
		edit: "d.ResetWithSeed(salt)",
		test: "TestDamageRecords",
	}, {
		name: "Get does not verify",
		at:   "verify-value",
		edit: "if err := found.verify(0, p.Size, false, found.inMemory); false $body",
		test: "TestDamageBits",
	}, {
		name: "an older manifest takes the place of a damaged one",
		at:   "damaged-manifest",
		edit: `var older []string
for _, n := range names {
if n != segment.ManifestName(gen) {
older = append(older, n)
}
}
return Read(fsys, older)`,
		test: "TestDamageFiles",
	}, {
		name: "the second image of a manifest is not read",
		at:   "second-image",
		edit: "if m, err2 := DecodeImage(b[len(b)/2:], generation); err2 == nil && false $body",
		test: "TestDamageFiles",
	}, {
		name: "a follower shows what is not synced",
		at:   "follow-proven",
		edit: "return tail.Valid, nil",
	}, {
		name: "a blob is not synced",
		at:   "sync-blob",
		edit: "if err := w.file.Trim(); err != nil $body",
	}, {
		name: "the name of a blob is not synced",
		at:   "name-blob",
		edit: "return w.file.Close()",
	}, {
		name: "a named segment is cut off",
		at:   "trim-to-size",
		edit: `return f.call("ftruncate", func(fd int) error { return unix.Ftruncate(fd, size-8) })`,
		test: "TestKill",
	}, {
		name: "two writers at a time",
		at:   "exclusive-lock",
		edit: "how = unix.LOCK_SH | unix.LOCK_NB",
		test: "TestLockSpelling|TestLockRace",
	}, {
		name: "half a batch is visible",
		at:   "publish-group",
		edit: `$stmt
x.visible.Store(max(visible, x.visible.Load()))`,
		test: "TestNobodySeesHalfAGroup|TestReaderWaits",
		pkg:  "index",
	}, {
		name: "puts take the room that deletes need on a full disk",
		at:   "reserve-for-deletes",
		edit: "return db.writer.active.Reserve(0, db.mayPut)",
		test: "TestPutsLeaveRoomForDeletes",
		pkg:  "db",
	}, {
		name: "no spare segment",
		at:   "spare-segment",
		edit: "if true $body",
		test: "TestDeletesOnFullDisk",
		pkg:  "db",
	}, {
		name: "puts leave no room for compaction",
		at:   "room-for-compaction",
		edit: "err := error(nil)",
		test: "TestFullDiskGivesSpaceBack",
		pkg:  "db",
	}, {
		name: "segments on a full disk are as large as ever",
		at:   "small-segments",
		edit: "return max(max(db.free(0)/segmentPart, smallestSegment*db.reserveSize()), db.opts.SegmentSize)",
		test: "TestFullDiskGivesSpaceBack",
		pkg:  "db",
	}, {
		name: "compaction does not use the blocks that are held for it",
		at:   "scarce-blocks",
		edit: "if true $body",
		test: "TestFullDiskGivesSpaceBack",
		pkg:  "db",
	}, {
		name: "compaction sets more aside than it writes",
		at:   "reserve-staged",
		edit: "if err := w.Reserve(0, may); err != nil $body",
		test: "TestFullDiskOfLargeValues",
		pkg:  "db",
	}, {
		name: "what there is no room to copy stands in the way",
		at:   "drop-unfit",
		edit: "",
		test: "TestFullDiskGivesSpaceBack|TestCompactWithoutRoom",
		pkg:  "db",
	}, {
		name: "Compact takes what a pause has ended for done",
		at:   "again-after-pause",
		edit: "",
		test: "TestPauseDuringCompact",
		pkg:  "db",
	}, {
		name: "Compact forgets what there was no room for",
		at:   "note-short",
		edit: "db.compactor.short = !slices.ContainsFunc(s.candidates, func(c candidate) bool { return c.need <= room })",
		test: "TestCompactWithoutRoomForSome",
		pkg:  "db",
	}, {
		name: "compaction uses up what deletes need on a full disk",
		at:   "prepare-manifest",
		edit: "if ready && false $body",
		test: "TestCompactWithoutRoom",
		pkg:  "db",
	}, {
		name: "a segment goes unread though tombstones in it are needed",
		at:   "nothing-in",
		edit: "return len(db.compactor.suspect) == 0 && db.index.Usage(seg).Records == index.Usage{}.Records",
		test: "TestCompactionOrders|TestCompactUnread",
		pkg:  "db",
	}, {
		name: "a record is dropped if nobody can tell whether it is needed",
		at:   "unclear-record",
		edit: "return false, nil",
		test: "TestCompactBesideDamage|TestDeletedBesideDamage",
		pkg:  "db",
	}, {
		name: "a verified reference passes for a verified blob",
		at:   "verified-blob",
		edit: "return db.handleOf(&valueSource{seg: seg, record: r, payload: p, hit: hit}, hit.Verified()), nil",
		test: "TestDamageBits",
	}, {
		name: "a newer record is taken for a torn tail",
		at:   "newer-record",
		edit: "if false $body",
		test: "TestBadNewerRecord",
	}, {
		name: "what can't be read is taken for a leftover",
		at:   "unreadable-leftover",
		edit: "return nil, nil",
		test: "TestLostManifest",
		pkg:  "db",
	}, {
		name: "leftovers are removed before all is known to be whole",
		at:   "load-before-strays",
		edit: `$stmt
db.removeStrays(m, names)`,
		test: "TestDamageBits|TestBadRandom",
	}, {
		name: "the originals of a repair that was cut off are removed",
		at:   "trash-originals",
		edit: "if false $body",
		test: "TestRepairCutOffThenOpen",
		pkg:  "db",
	}, {
		name: "a snapshot of a closed store takes what a later run removed for damage",
		at:   "expire-after-close",
		edit: "if s.db.opts.ReadOnly $body",
		test: "TestReadersOutliveStore",
	}, {
		name: "a full disk has no name",
		at:   "name-no-space",
		edit: "_ = fmt.Errorf; return err",
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

// marked is a statement of the engine that a marker names.
type marked struct {
	file       string // its absolute path
	source     string
	start, end int // the statement
	body       int // where the body of an if begins, which ends with the statement; or 0
}

// edited is the file with something else in place of the statement. In it $stmt
// stands for the statement, and $body for the body of an if with all that follows.
func (p marked) edited(edit string) string {
	edit = strings.ReplaceAll(edit, "$stmt", p.source[p.start:p.end])
	if p.body > 0 {
		edit = strings.ReplaceAll(edit, "$body", p.source[p.body:p.end])
	}
	return p.source[:p.start] + edit + p.source[p.end:]
}

const markerPrefix = "// sabotage: "

// places finds all markers in the engine.
func places(t *testing.T) map[string]marked {
	t.Helper()
	found := make(map[string]marked)
	for _, root := range []string{"db", "index", "segment"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			return placesIn(path, found)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// placesIn adds the markers of one file.
func placesIn(path string, found map[string]marked) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	source, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(source, []byte(markerPrefix)) {
		return err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, path, source, parser.ParseComments)
	if err != nil {
		return err
	}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			name, ok := strings.CutPrefix(c.Text, markerPrefix)
			if !ok {
				continue
			}
			at := set.Position(c.Pos())
			before := source[at.Offset-at.Column+1 : at.Offset]
			line := at.Line
			if len(bytes.TrimSpace(before)) == 0 {
				line++ // the comment has a line of its own
			}
			stmt := statementOn(set, parsed, line)
			if _, twice := found[name]; twice || stmt == nil {
				return fmt.Errorf("%v: %s is there twice, or marks no statement", at, name)
			}
			p := marked{file: path, source: string(source)}
			p.start, p.end = set.Position(stmt.Pos()).Offset, set.Position(stmt.End()).Offset
			if i, ok := stmt.(*ast.IfStmt); ok {
				p.body = set.Position(i.Body.Pos()).Offset
			}
			found[name] = p
		}
	}
	return nil
}

// statementOn is the outermost statement that begins on a line.
func statementOn(set *token.FileSet, file *ast.File, line int) (found ast.Stmt) {
	ast.Inspect(file, func(n ast.Node) bool {
		stmt, ok := n.(ast.Stmt)
		if _, block := n.(*ast.BlockStmt); ok && !block && found == nil && set.Position(stmt.Pos()).Line == line {
			found = stmt
		}
		return found == nil
	})
	return found
}

// TestSabotageApplies promises that each sabotage has its marker in the engine and
// makes a file that can be parsed, and that each marker has its sabotage.
func TestSabotageApplies(t *testing.T) {
	found := places(t)
	used := make(map[string]bool)
	for _, s := range sabotages {
		used[s.at] = true
		p, ok := found[s.at]
		if !ok {
			t.Errorf("%s: no %s%s in the engine", s.name, markerPrefix, s.at)
			continue
		}
		edited := p.edited(s.edit)
		if _, err := parser.ParseFile(token.NewFileSet(), p.file, edited, 0); err != nil || edited == p.source {
			t.Errorf("%s: the edit does not fit the statement: %v", s.name, err)
		}
	}
	for name := range found {
		if !used[name] {
			t.Errorf("%s%s marks what no sabotage breaks", markerPrefix, name)
		}
	}
}

// build compiles the tests of a package on top of the sabotaged engine.
func (s sabotage) build(t *testing.T) (binary string) {
	p, ok := places(t)[s.at]
	if !ok {
		t.Fatalf("no %s%s in the engine", markerPrefix, s.at)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, []byte(p.edited(s.edit)), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {p.file: changed}})
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
