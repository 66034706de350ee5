package fuzz

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// modelSettings are stores that must not differ in anything but when things
// reach the disk.
var modelSettings = []db.Options{
	{SegmentSize: 4 << 10},
	{SegmentSize: 4 << 10, Verify: db.VerifyAlways, Sync: db.SyncNever},
	{SegmentSize: 4 << 10, Verify: db.VerifyNever, Sync: db.SyncInterval},
	{SegmentSize: 24 << 10, Verify: db.VerifyAlways, Sync: db.SyncInterval},
	{SegmentSize: 24 << 10, Sync: db.SyncNever},
	{SegmentSize: 256 << 10},
	{SegmentSize: 4 << 10, BlobSize: 4 << 10},
}

// TestModel promises that a store contains what was put there, by every way
// of reading, whatever happened in between short of a power cut. Method: a
// random history runs on a simulated disk next to a reference, and everything
// is compared after each operation: Get, View, Value, snapshots new and old in
// all directions, counts, and a follower. Each history runs under all
// settings, which must end with the same contents.
func TestModel(t *testing.T) {
	histories := 40
	if underRace {
		histories = 4
	}
	first := number(t, "CROWFLY_SEED", 0)
	for seed := first; seed < first+histories; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			ops := modelHistory(uint64(seed))
			var end []state
			for _, opts := range modelSettings {
				s := newSession(simdisk.New(), opts, len(keys), newReference())
				if err := s.runChecked(ops); err != nil {
					t.Fatal(describe(s, ops, err))
				}
				end = append(end, s.ref.now())
				if end[0] != s.ref.now() {
					t.Fatal(describe(s, ops, fmt.Errorf("ends with %v, another setting with %v", s.ref.now(), end[0])))
				}
			}
			runtime.GC() // also runs what waits for handles to be forgotten
		})
	}
}

func modelHistory(seed uint64) []operation {
	g := generator{Rand: rand.New(rand.NewPCG(seed, 1)), keys: len(keys), segment: 4 << 10, readers: true}
	return g.history(80)
}

// runChecked runs a history and compares everything after each operation and
// after two more starts. The second of them has nothing left to tidy up.
func (s *session) runChecked(ops []operation) error {
	err := s.run(ops, s.checkAll)
	before := 0
	for range 2 {
		before = s.changes()
		if err == nil {
			err = s.run(nil, nil)
		}
	}
	if err == nil && s.changes() != before {
		err = fmt.Errorf("opening and closing an unused store took %d changes of the disk", s.changes()-before)
	}
	return err
}

// changes counts what the disk was asked to change. To sync a directory is no
// change.
func (s *session) changes() int { return s.disk.Ops() - s.disk.Count(simdisk.OpSyncDir) }

func describe(s *session, ops []operation, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", err)
	writeHistory(&b, s.opts, ops)
	return b.String()
}
