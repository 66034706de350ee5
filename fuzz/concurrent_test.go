package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// writers of TestCrashConcurrent. Each has two keys of its own, which it
// always writes together, and they share one.
const writers = 4

const sharedKey = "shared"

func ownKeys(writer int) [2]string {
	return [2]string{fmt.Sprintf("%d first", writer), fmt.Sprintf("%d second", writer)}
}

// logged is a write of several goroutines that write at the same time. What
// they did is told by two readings of a common clock.
type logged struct {
	keys   []string
	remove bool
	begin  int
	end    int // 0 as long as it is not acknowledged
}

// writeLog has the writes by number, from 1.
type writeLog struct {
	mu     sync.Mutex
	clock  int
	writes []logged
}

func (l *writeLog) begin(keys []string, remove bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	l.writes = append(l.writes, logged{keys, remove, l.clock, 0})
	return len(l.writes)
}

func (l *writeLog) end(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	l.writes[n-1].end = l.clock
}

func (l *writeLog) now() []logged {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

// superseded reports whether a write was acknowledged, by the log before, that
// began after the time end and has the key.
func superseded(key string, end int, before []logged) bool {
	return slices.ContainsFunc(before, func(w logged) bool {
		return w.end > 0 && w.begin > end && slices.Contains(w.keys, key)
	})
}

// mayHave reports whether a key may have the value of write n, or with 0 none,
// in a store that was taken between two readings of the log.
func mayHave(key string, n int, before, after []logged) bool {
	if n > len(after) {
		return false
	}
	if n == 0 && !superseded(key, 0, before) {
		return true
	}
	for i, w := range after {
		candidate := n == i+1 && !w.remove || n == 0 && w.remove
		if !candidate || !slices.Contains(w.keys, key) {
			continue
		}
		acknowledged := i < len(before) && before[i].end > 0
		if !acknowledged || !superseded(key, before[i].end, before) {
			return true
		}
	}
	return false
}

// TestCrashConcurrent promises the same as TestCrash for several writers at a
// time, whose writes are committed in groups, and that no reader sees a part of a
// batch. Method: power cuts after every file operation. An image must have
// every write that was acknowledged before it was taken, unless another
// supersedes it, and no pair of keys that are always written together may
// differ.
func TestCrashConcurrent(t *testing.T) {
	points := 8_000
	if underRace {
		points = 800
	}
	first := number(t, "CROWFLY_SEED", 0)
	done := 0
	for seed := first; done < points && !t.Failed(); seed++ {
		c := &concurrent{t: t, seed: uint64(seed), disk: simdisk.New(), size: 4 << 10 << (seed % 3)}
		c.run()
		done += c.points
	}
	t.Logf("%d points", done)
}

// concurrent is one run.
type concurrent struct {
	t      *testing.T
	seed   uint64
	disk   *simdisk.Disk
	size   int64
	store  *db.DB
	log    writeLog
	points int
}

func (c *concurrent) open(disk *simdisk.Disk) (*db.DB, error) {
	return db.Open("", &db.Options{FS: disk, SegmentSize: c.size})
}

func (c *concurrent) run() {
	var err error
	if c.store, err = c.open(c.disk); err != nil {
		c.t.Fatal(err)
	}
	images := rand.New(rand.NewPCG(c.seed, 0))
	c.disk.OnOp(func(n int, op string) { c.cut(images, n, op) })

	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range writers {
		wg.Go(func() { c.write(w, rand.New(rand.NewPCG(c.seed, uint64(w)+1))) })
	}
	reading := sync.WaitGroup{}
	reading.Go(func() { c.read(stop) })
	wg.Wait()
	close(stop)
	reading.Wait()

	all := c.log.now()
	c.report("at the end", c.check(c.store.Get, all, all))
	if err := c.store.Close(); err != nil {
		c.t.Error(err)
	}
}

// report tells what went wrong first.
func (c *concurrent) report(where string, err error) {
	if err != nil && !c.t.Failed() {
		c.t.Errorf("seed %d, %s: %v", c.seed, where, err)
	}
}

// write is one writer.
func (c *concurrent) write(writer int, rng *rand.Rand) {
	own := ownKeys(writer)
	for range 25 {
		keys, remove := own[:], rng.IntN(4) == 0
		if rng.IntN(2) == 0 {
			keys = append(keys[:2:2], sharedKey)
		}
		n := c.log.begin(keys, remove)
		value := append(binary.LittleEndian.AppendUint32(nil, uint32(n)), make([]byte, rng.IntN(300))...)
		var b db.Batch
		for _, key := range keys {
			if remove {
				b.Delete([]byte(key))
			} else {
				b.Put([]byte(key), value, nil)
			}
		}
		if err := c.store.Apply(&b, nil); err != nil {
			c.t.Errorf("seed %d: %v", c.seed, err)
			return
		}
		c.log.end(n)
	}
}

// read looks at snapshots until stop.
func (c *concurrent) read(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		before := c.log.now()
		snap, err := c.store.Snapshot()
		if err != nil {
			c.t.Error(err)
			return
		}
		after := c.log.now()
		c.report("snapshot", errors.Join(c.check(snap.Get, before, after), snap.Close()))
	}
}

// cut checks what a power cut now would leave.
func (c *concurrent) cut(rng *rand.Rand, n int, op string) {
	var seen []uint64
	for i := range crashStates {
		before := c.log.now()
		image := c.disk.CrashIn(manner(n, i), rng)
		after := c.log.now()
		sum := image.Sum()
		if slices.Contains(seen, sum) {
			continue
		}
		seen = append(seen, sum)
		c.points++
		store, err := c.open(image)
		if err == nil {
			err = c.check(store.Get, before, after)
		}
		c.report(fmt.Sprintf("image %d after operation %d, %s", i, n, op), err)
	}
}

// check reads all keys and compares them with two readings of the log, one
// from before the store or snapshot was taken and one from after.
func (c *concurrent) check(get func(dst, key []byte) ([]byte, error), before, after []logged) error {
	if err := c.checkKey(get, sharedKey, before, after); err != nil {
		return err
	}
	for w := range writers {
		own := ownKeys(w)
		for _, key := range own {
			if err := c.checkKey(get, key, before, after); err != nil {
				return err
			}
		}
		a, errA := get(nil, []byte(own[0]))
		b, errB := get(nil, []byte(own[1]))
		if !bytes.Equal(a, b) || errors.Is(errA, db.ErrNotFound) != errors.Is(errB, db.ErrNotFound) {
			return fmt.Errorf("half a batch: %q has %.8x (%v), %q has %.8x (%v)", own[0], a, errA, own[1], b, errB)
		}
	}
	return nil
}

func (c *concurrent) checkKey(get func(dst, key []byte) ([]byte, error), key string, before, after []logged) error {
	value, err := get(nil, []byte(key))
	n := 0
	switch {
	case err == nil && len(value) >= 4:
		n = int(binary.LittleEndian.Uint32(value))
	case !errors.Is(err, db.ErrNotFound):
		return fmt.Errorf("key %q, value %x: %v", key, value, err)
	}
	if !mayHave(key, n, before, after) {
		return fmt.Errorf("key %q has the value of write %d (0 is none)\nbefore: %v\nafter: %v", key, n, before, after)
	}
	return nil
}
