package fuzz

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// The crash campaign runs random histories on a simulated disk. After every
// file operation, also those of recoveries, it takes images of the disk as a
// power cut or the end of the process could leave it, opens the store that
// lies there and asks the reference whether it may look like that. cut_test.go
// has the images.
const (
	crashKeys   = 8
	crashShards = 2 // run in parallel
	crashPoints = 50_000
	crashOps    = 30
	crashLong   = 200 // of one history in 32
)

// crashSettings are the stores that histories run on.
var crashSettings = []db.Options{
	{Sync: db.SyncAlways, SegmentSize: 4 << 10},
	{Sync: db.SyncNever, SegmentSize: 4 << 10, CompactionRate: slowCompaction},
	{Sync: db.SyncAlways, SegmentSize: 16 << 10},
	{Sync: db.SyncInterval, SegmentSize: 4 << 10},
	{Sync: db.SyncAlways, SegmentSize: 4 << 10, BlobSize: 4 << 10, CompactionRate: slowCompaction},
	{Sync: db.SyncNever, SegmentSize: 4 << 10, BlobSize: 4 << 10},
}

// slowCompaction is so slow that other operations come between its steps: half a
// segment of 4 KiB in 80 ms.
const slowCompaction = 25 << 10

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
// have failing file operations, the others have readers. A campaign that does
// not get around any more fails too.
func TestCrash(t *testing.T) {
	c := campaign{t: t, points: crashPoints, start: time.Now(), seen: make(coverage)}
	if underRace {
		c.points = 3_000
	}
	c.points = number(t, "CROWFLY_POINTS", c.points)
	c.seed = number(t, "CROWFLY_SEED", 0)
	c.replay = os.Getenv("CROWFLY_REPLAY")
	shards := crashShards
	if c.replay != "" {
		shards = 1
	}

	// There is much garbage and nothing else in memory.
	defer debug.SetGCPercent(debug.SetGCPercent(200))

	t.Run("shards", func(t *testing.T) {
		for shard := range shards {
			t.Run(strconv.Itoa(shard), func(t *testing.T) {
				t.Parallel()
				c.work(t)
			})
		}
	})
	c.progress()
	t.Logf("seen: %v", c.seen)
	if missing := c.seen.missing(crashCoverage()); c.replay == "" && c.points >= crashPoints && len(missing) > 0 && !t.Failed() {
		t.Errorf("no history came through %q", missing)
	}
}

// crashCoverage is what a campaign has to come through.
func crashCoverage() []string {
	list := []string{sawRotation, sawFold, sawBlob, sawHint, sawHintAfterCut, sawSectors, sawLarge, sawNext, sawGeneration(1), sawGeneration(2), sawKill}
	for keep := range simdisk.Keep(simdisk.Keeps) {
		for _, ordered := range []bool{false, true} {
			list = append(list, sawManner(simdisk.Manner{Keep: keep, Ordered: ordered}))
		}
	}
	for size := range simdisk.Size(simdisk.Sizes) {
		list = append(list, sawSize(size))
	}
	return append(list, readerMix.and(faultMix).names()...)
}

// campaign is a run of TestCrash. All shards draw from one line of seeds, and
// so of settings.
type campaign struct {
	t      *testing.T
	points int // how many to check
	seed   int // of the first history
	replay string
	start  time.Time

	mu        sync.Mutex
	done      int
	histories int
	logged    int // points at the last progress
	seen      coverage
}

func (c *campaign) work(t *testing.T) {
	for {
		seed, ok := c.next()
		if !ok {
			return
		}
		h := newCrashHistory(seed)
		h.replay = c.replay
		if !h.run() {
			t.Fatal(h.report())
		}
		c.finish(h)
	}
}

// next gives out the next history, if there are points left to check.
func (c *campaign) next() (seed uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.histories++
	ok = c.done < c.points
	if c.replay != "" {
		ok = c.histories == 1
	}
	return uint64(c.seed + c.histories - 1), ok
}

func (c *campaign) finish(h *crashHistory) {
	const every = 1_000_000
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += h.points
	c.seen.add(h.seen)
	if c.done-c.logged >= every {
		c.progress()
		c.logged = c.done
	}
}

func (c *campaign) progress() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.t.Logf("%d points of %d histories, %.0f a second, %d MiB of heap",
		c.done, c.histories, float64(c.done)/time.Since(c.start).Seconds(), m.HeapInuse>>20)
}

// newCrashHistory draws a history.
func newCrashHistory(seed uint64) *crashHistory {
	settings := uint64(len(crashSettings))
	g := generator{
		Rand: rand.New(rand.NewPCG(seed, 0)),
		keys: crashKeys,
		mix:  readerMix,
	}
	if seed/settings%2 == 1 {
		g.mix = faultMix
	}
	opts := crashSettings[seed%settings]
	g.segment = int(opts.SegmentSize)
	n := crashOps
	if seed%32 == 15 {
		n = crashLong
	}
	return &crashHistory{seed: seed, opts: opts, keys: crashKeys, ops: g.history(n), rounds: 1}
}

// report says what went wrong and how to see it again.
func (h *crashHistory) report() string {
	return fmt.Sprintf("go test ./fuzz -run TestCrash$ with CROWFLY_SEED=%d CROWFLY_REPLAY=%s\n%s", h.seed, h.path, h.describe())
}

func (h *crashHistory) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "image %s of history %d, %+v: %v\n", h.path, h.seed, h.opts, h.failed)
	writeHistory(&b, h.ops)
	if small := h.shrink(); small != h {
		fmt.Fprintf(&b, "a shorter one: %v\nat %s\n", small.failed, small.path)
		writeHistory(&b, small.ops)
	}
	return b.String()
}

// shrink looks for a shorter history that is wrong. It takes more images,
// since others may be wrong now.
func (h *crashHistory) shrink() *crashHistory {
	least := h
	shrink(h.ops, func(ops []operation) bool {
		try := &crashHistory{seed: h.seed, opts: h.opts, keys: h.keys, ops: ops, rounds: 3}
		if try.run() {
			return false
		}
		least = try
		return true
	})
	return least
}
