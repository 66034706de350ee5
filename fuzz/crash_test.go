package fuzz

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// The crash campaign runs random histories on a simulated disk. After every
// file operation, also those of recoveries, it takes images of the disk as a
// power cut or the end of the process could leave it, opens the store that
// lies there and asks the reference whether it may look like that.
const (
	crashKeys   = 8
	crashShards = 2 // run in parallel
	crashOps    = 30
)

// crashSettings are the stores that histories run on.
var crashSettings = []db.Options{
	{Sync: db.SyncAlways, SegmentSize: 4 << 10},
	{Sync: db.SyncNever, SegmentSize: 4 << 10},
	{Sync: db.SyncAlways, SegmentSize: 16 << 10},
	{Sync: db.SyncInterval, SegmentSize: 4 << 10},
	{Sync: db.SyncAlways, SegmentSize: 4 << 10, BlobSize: 4 << 10},
	{Sync: db.SyncNever, SegmentSize: 4 << 10, BlobSize: 4 << 10},
}

// number reads an environment variable.
func number(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestCrash promises that nothing acknowledged is ever lost, nothing invented,
// no batch halved and no start refused, wherever the power fails, again and
// again; and that readers never see what a power cut may still take away. The
// method is described above; each image is one point. Half of the histories
// have failing file operations, the others have readers.
func TestCrash(t *testing.T) {
	points := 55_000
	if underRace {
		points = 2_000
	}
	points = number(t, "CROWFLY_POINTS", points)
	first := number(t, "CROWFLY_SEED", 0)
	shards, replay := crashShards, os.Getenv("CROWFLY_REPLAY")
	if replay != "" {
		shards = 1
	}

	// There is much garbage and nothing else in memory.
	defer debug.SetGCPercent(debug.SetGCPercent(200))

	var done, histories atomic.Int64 // all shards draw from one line of seeds, and so of settings
	start := time.Now()
	t.Run("shards", func(t *testing.T) {
		for shard := range shards {
			t.Run(strconv.Itoa(shard), func(t *testing.T) {
				t.Parallel()
				for done.Load() < int64(points) {
					h := newCrashHistory(uint64(first) + uint64(histories.Add(1)) - 1)
					h.replay = replay
					if !h.run() {
						t.Fatal(h.report())
					}
					done.Add(int64(h.points))
					if replay != "" {
						return
					}
				}
			})
		}
	})
	t.Logf("%d points of %d histories, %.0f a second",
		done.Load(), histories.Load(), float64(done.Load())/time.Since(start).Seconds())
}

// crashHistory is one history and what came of it.
type crashHistory struct {
	seed   uint64
	opts   db.Options
	ops    []operation
	images int    // taken after every file operation
	replay string // check only this image, and those it comes from

	points int
	path   string // of the image that is wrong
	failed error
}

func newCrashHistory(seed uint64) *crashHistory {
	opts := crashSettings[seed%uint64(len(crashSettings))]
	faults := seed/uint64(len(crashSettings))%2 == 1
	g := generator{
		Rand:    rand.New(rand.NewPCG(seed, 0)),
		keys:    crashKeys,
		segment: int(opts.SegmentSize),
		faults:  faults,
		readers: !faults,
	}
	return &crashHistory{seed: seed, opts: opts, ops: g.history(crashOps), images: 2}
}

// run reports whether all images were right.
func (h *crashHistory) run() bool {
	s := newSession(simdisk.New(), h.opts, crashKeys, newReference())
	h.cutAlways(s, "", h.images, 0)
	h.note("", s.run(h.ops, s.check))
	return h.failed == nil
}

// note keeps the first thing that went wrong.
func (h *crashHistory) note(path string, err error) {
	if err != nil && h.failed == nil {
		h.path, h.failed = path, err
	}
}

// cutAlways takes images after every file operation of a session.
func (h *crashHistory) cutAlways(s *session, path string, images, generation int) {
	cut := 0
	s.hook = func(_ int, op string) {
		cut++
		h.note(path, s.checkReaders())
		for i := range images {
			h.cut(s, fmt.Sprintf("%s/%d-%s-%d", path, cut, op, i), generation)
		}
	}
	s.use(s.disk)
}

// cut takes one image and checks it. The path it has is the seed of its
// choices.
func (h *crashHistory) cut(s *session, path string, generation int) {
	if h.failed != nil || !strings.HasPrefix(h.replay, path) && h.replay != "" {
		return
	}
	h.points++
	sum := fnv.New64a()
	sum.Write([]byte(path))
	rng := rand.New(rand.NewPCG(h.seed, sum.Sum64()))

	power, disk := rng.IntN(6) > 0, s.disk.Clone
	if power {
		disk = func() *simdisk.Disk { return s.disk.Crash(rng) }
	}
	image := newSession(disk(), h.opts, crashKeys, s.ref.fork(power))
	const generations, nested = 3, 32
	if generation+1 < generations && rng.IntN(nested) == 0 {
		h.cutAlways(image, path, 1, generation+1)
	}
	h.note(path, h.recover(image, rng))
}

// recover opens what a crash left, which is the check, and sees whether the
// store is good for more.
func (h *crashHistory) recover(s *session, rng *rand.Rand) error {
	readOnly := rng.IntN(4) == 0
	var shown state
	if readOnly {
		var err error
		if shown, err = s.checkReadOnly(); err != nil {
			return err
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	if readOnly && shown != s.ref.settled {
		return fmt.Errorf("read-only open finds %v, the writer %v", shown, s.ref.settled)
	}
	if rng.IntN(2) == 0 {
		return nil
	}
	return h.goOn(s, rng)
}

// goOn writes to a recovered store and looks whether that lasts.
func (h *crashHistory) goOn(s *session, rng *rand.Rand) error {
	for _, op := range []operation{
		{kind: opPut, key: rng.IntN(crashKeys), size: rng.IntN(600)},
		{kind: opDelete, key: rng.IntN(crashKeys), synced: true},
	} {
		if err := s.do(op); err != nil {
			return fmt.Errorf("after recovery, %v: %w", op, err)
		}
	}
	if err := errors.Join(s.check(), s.reopen(), s.check()); err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	return s.close()
}

// report says what went wrong and how to see it again.
func (h *crashHistory) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", h.failed)
	fmt.Fprintf(&b, "image %s of history %d: go test ./fuzz -run TestCrash$ with CROWFLY_SEED=%[2]d CROWFLY_REPLAY=%[1]s\n", h.path, h.seed)
	writeHistory(&b, h.opts, h.ops)
	if small := h.shrink(); small != h {
		fmt.Fprintf(&b, "a shorter one: %v\nat %s\n", small.failed, small.path)
		writeHistory(&b, small.opts, small.ops)
	}
	return b.String()
}

func writeHistory(b *strings.Builder, opts db.Options, ops []operation) {
	fmt.Fprintf(b, "sync mode %d, segment size %d\n", opts.Sync, opts.SegmentSize)
	for i, op := range ops {
		fmt.Fprintf(b, "%4d %v\n", i, op)
	}
}

// shrink leaves operations out for as long as something goes wrong and it has
// time. It takes more images, since others may be wrong now.
func (h *crashHistory) shrink() *crashHistory {
	const atMost = 5 * time.Second
	start := time.Now()
	for n := len(h.ops) / 2; n > 0; n /= 2 {
		for from := 0; from+n <= len(h.ops) && time.Since(start) < atMost; {
			ops := append(append([]operation(nil), h.ops[:from]...), h.ops[from+n:]...)
			try := &crashHistory{seed: h.seed, opts: h.opts, ops: ops, images: 12}
			if try.run() {
				from += n
			} else {
				h = try
			}
		}
	}
	return h
}
