package fuzz

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// modelSettings are stores that must not differ in anything but when things
// reach the disk, and where on it.
var modelSettings = []db.Options{
	{SegmentSize: 4 << 10},
	{SegmentSize: 4 << 10, Verify: db.VerifyAlways, Sync: db.SyncNever},
	{SegmentSize: 4 << 10, Verify: db.VerifyNever, Sync: db.SyncInterval},
	{SegmentSize: 4 << 10, BlobSize: 4 << 10},
	{SegmentSize: 4 << 10, BlobSize: 6 << 10, Sync: db.SyncNever, Verify: db.VerifyAlways},
	{SegmentSize: 8 << 10, Sync: db.SyncInterval, SyncEvery: 10 * time.Millisecond},
	{SegmentSize: 12 << 10, BlobSize: 4 << 10, Sync: db.SyncInterval, Verify: db.VerifyNever},
	{SegmentSize: 24 << 10, Verify: db.VerifyAlways, Sync: db.SyncInterval, SyncEvery: time.Second},
	{SegmentSize: 24 << 10, Sync: db.SyncNever},
	{SegmentSize: 64 << 10, Verify: db.VerifyNever, BlobSize: 8 << 10},
	{SegmentSize: 256 << 10},
	{SegmentSize: 512 << 10, BlobSize: 16 << 10, Sync: db.SyncInterval},
	{SegmentSize: 768 << 10, Sync: db.SyncNever, BlobSize: 4 << 10, Verify: db.VerifyAlways},
}

const (
	modelHistories = 24
	modelOps       = 80
	modelShards    = 2 // run in parallel
)

// TestModel promises that a store contains what was put there, by every way
// of writing and reading, whatever happened in between short of a power cut,
// and that it refuses what it has to. Method: a random history of all public
// operations runs on a simulated disk next to a reference. What each operation
// reports is compared, and after it everything there is to read. Each history
// runs under all settings, which must report the same and end with the same
// contents. One that fails is made shorter.
func TestModel(t *testing.T) {
	histories := modelHistories
	if underRace {
		histories = 4
	}
	histories = number(t, "CROWFLY_HISTORIES", histories)
	first := number(t, "CROWFLY_SEED", 0)
	shards := make([]coverage, modelShards)
	t.Run("shards", func(t *testing.T) {
		for shard := range shards {
			shards[shard] = make(coverage)
			t.Run(strconv.Itoa(shard), func(t *testing.T) {
				t.Parallel()
				for seed := first + shard; seed < first+histories; seed += modelShards {
					m := model{seed: uint64(seed), settings: modelSettings, seen: shards[shard]}
					if failed, err := m.run(m.history()); err != nil {
						t.Fatal(m.report(failed, err))
					}
					runtime.GC() // also runs what waits for handles to be forgotten
				}
			})
		}
	})
	seen := make(coverage)
	for _, s := range shards {
		seen.add(s)
	}
	t.Logf("%d histories: %v", histories, seen)
	if missing := seen.missing(modelCoverage()); histories >= modelHistories && len(missing) > 0 && !t.Failed() {
		t.Errorf("no history came through %q", missing)
	}
}

// TestReadersOutliveStore promises that what readers hold of a store which was closed
// stays readable or has expired while later runs delete, overwrite and compact, and
// never looks like damage. Method: histories as those of TestModel, of values that
// get files of their own, and of many starts with open readers.
func TestReadersOutliveStore(t *testing.T) {
	seen := make(coverage)
	for seed := range uint64(number(t, "CROWFLY_HISTORIES", 48)) {
		g := generator{Rand: rand.New(rand.NewPCG(seed, 2)), keys: len(keys), segment: 4 << 10, mix: outliveMix, blobs: true}
		for _, opts := range []db.Options{
			{SegmentSize: 4 << 10, BlobSize: 4 << 10},
			{SegmentSize: 64 << 10, BlobSize: 4 << 10, Sync: db.SyncNever, Verify: db.VerifyAlways},
		} {
			s := newSession(simdisk.New(), opts, len(keys), newReference())
			s.seen = seen
			err := errors.Join(s.run(g.history(modelOps), func() error { return nil }), s.closeOutlived())
			s.leave()
			if err != nil {
				t.Fatalf("seed %d, %+v: %v", seed, opts, err)
			}
		}
	}
	t.Log(seen)
	if missing := seen.missing([]string{sawBlob, sawHandles, sawOutlivedExpire}); len(missing) > 0 {
		t.Errorf("no history came through %q", missing)
	}
}

// modelCoverage is what histories have to come through.
func modelCoverage() []string {
	list := []string{sawRotation, sawFold, sawBlob, sawLarge, sawHandles}
	for _, s := range sources[fromShort:] {
		list = append(list, "refused:"+s)
	}
	for _, c := range conditions[ifAbsent:] {
		list = append(list, "refused:"+c)
	}
	return append(list, modelMix.names()...)
}

// model is a history that runs under all settings.
type model struct {
	seed     uint64
	settings []db.Options
	seen     coverage
}

func (m model) history() []operation {
	g := generator{Rand: rand.New(rand.NewPCG(m.seed, 1)), keys: len(keys), segment: 4 << 10, mix: modelMix}
	return g.history(modelOps)
}

// moment is what must be the same under all settings after each operation.
type moment struct {
	state
	commits, records uint64
}

// run reports the first difference to the reference, or to the first setting,
// and under which setting it is.
func (m model) run(ops []operation) (failed int, err error) {
	var want []moment
	for i, opts := range m.settings {
		s := newSession(simdisk.New(), opts, len(keys), newReference())
		s.seen = m.seen
		moments, err := s.runChecked(ops)
		s.leave()
		if i == 0 {
			want = moments
		}
		if err == nil && !slices.Equal(moments, want) {
			err = fmt.Errorf("under the first setting it went %v, now %v", want, moments)
		}
		if err != nil {
			return i, fmt.Errorf("%+v: %w", opts, err)
		}
	}
	return 0, nil
}

// report says what went wrong and with which operations, as few as possible.
func (m model) report(failed int, err error) string {
	m.seen = nil
	m.settings = []db.Options{m.settings[0], m.settings[failed]}
	ops := shrink(m.history(), func(ops []operation) bool {
		_, errNow := m.run(ops)
		if errNow != nil {
			err = errNow
		}
		return errNow != nil
	})
	var b strings.Builder
	fmt.Fprintf(&b, "history %d, made shorter: %v\n", m.seed, err)
	writeHistory(&b, ops)
	return b.String()
}

// runChecked runs a history and compares everything after each operation and
// after two more starts. The second of them has nothing left to tidy up.
func (s *session) runChecked(ops []operation) (moments []moment, err error) {
	err = s.run(ops, func() error {
		stats := s.store.Stats()
		moments = append(moments, moment{s.ref.now(), stats.Commits, stats.Records})
		return s.checkAll()
	})
	before := int64(0)
	for range 2 {
		before = s.changes()
		if err == nil {
			err = s.run(nil, nil)
		}
	}
	if err == nil && s.changes() != before {
		err = fmt.Errorf("opening and closing an unused store took %d changes of the disk", s.changes()-before)
	}
	return moments, err
}

// changes counts what the store asked the disk to change. To sync a directory
// is no change.
func (s *session) changes() int64 {
	return int64(s.sim().Ops()-s.sim().Count(simdisk.OpSyncDir)) - s.collected.count.Load()
}
