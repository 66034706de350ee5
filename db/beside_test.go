package db

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// generations is a store in which all keys are put again and again, each value
// saying how often, and who reads it beside that.
type generations struct {
	db   *DB
	done atomic.Int64 // every key has at least this one
}

const generationKeys = 40

func (g *generations) key(i int) []byte { return fmt.Appendf(nil, "key %03d", i) }

func (g *generations) putAll(t *testing.T) {
	n := g.done.Load() + 1
	for i := range generationKeys {
		mustPut(t, g.db, string(g.key(i)), string(bytes.Repeat(fmt.Appendf(nil, "%08d", n), 1+i%9)))
	}
	g.done.Store(n)
}

// right checks what was read of a key since every one had at least generation
// least.
func (g *generations) right(i int, value []byte, least int64) error {
	var n int64
	if _, err := fmt.Sscanf(string(value), "%8d", &n); err != nil || n < least ||
		!bytes.Equal(value, bytes.Repeat(fmt.Appendf(nil, "%08d", n), 1+i%9)) {
		return fmt.Errorf("key %d reads %.40q, generation %d was acknowledged", i, value, least)
	}
	return nil
}

// read reads everything in every way. The snapshot comes first: who looks for
// one key waits until a compaction has made up its mind, a snapshot can't.
func (g *generations) read() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if err := g.readSnapshot(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	for i := range generationKeys {
		if err := g.readKey(i); err != nil {
			return err
		}
	}
	return nil
}

func (g *generations) readSnapshot() error {
	least := g.done.Load()
	s, err := g.db.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	i := 0
	for key, e := range s.All() {
		if e.Err() != nil {
			return e.Err()
		}
		if want := g.key(i); !bytes.Equal(key, want) {
			return fmt.Errorf("%q instead of %q", key, want)
		}
		value, err := e.Bytes()
		if err == nil {
			err = g.right(i, value, least)
		}
		if err != nil {
			return err
		}
		i++
	}
	if i != generationKeys {
		return fmt.Errorf("%d keys", i)
	}
	return nil
}

func (g *generations) readKey(i int) error {
	least, key := g.done.Load(), g.key(i)
	b, err := g.db.Get(nil, key)
	if err == nil {
		err = g.right(i, b, least)
	}
	if err != nil {
		return fmt.Errorf("Get: %w", err)
	}
	if err := g.db.View(key, func(b []byte) error { return g.right(i, b, least) }); err != nil {
		return fmt.Errorf("View: %w", err)
	}
	v, err := g.db.Value(key)
	if err != nil {
		return fmt.Errorf("Value: %w", err)
	}
	defer v.Close()
	if b, err = v.Bytes(); err == nil {
		err = g.right(i, b, least)
	}
	return err
}

// Readers never notice a compaction: no key is absent, older than what was
// acknowledged or in the wrong place, whichever way it is read. Method: while
// all keys are put again and again, every segment is replaced, over and over;
// two goroutines read everything meanwhile, and so does every file operation of
// the store, so that there is a look between any two steps of a compaction.
func TestCompactBesideReaders(t *testing.T) {
	compactions := 10
	if underRace {
		compactions = 4
	}
	disk := newDisk()
	g := &generations{db: open(t, "", &Options{FS: disk, SegmentSize: 16 << 10, Sync: SyncNever})}
	g.db.PauseCompaction()
	g.putAll(t)
	var look sync.Mutex
	looks := 0
	disk.OnOp(func(int, string) {
		look.Lock()
		defer look.Unlock()
		if looks++; t.Failed() {
			return
		}
		if err := g.read(); err != nil {
			t.Error(err)
		}
	})

	var stop atomic.Bool
	var beside sync.WaitGroup
	for range 2 {
		beside.Go(func() {
			for !stop.Load() && !t.Failed() {
				if err := g.read(); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
		})
	}
	for range compactions {
		var putting sync.WaitGroup
		putting.Go(func() { g.putAll(t) })
		compactAll(t, g.db)
		putting.Wait()
		if t.Failed() {
			break
		}
		runtime.GC()
	}
	stop.Store(true)
	beside.Wait()
	disk.OnOp(nil)
	if looks < 10*compactions && !t.Failed() {
		t.Errorf("%d looks in %d compactions", looks, compactions)
	}
}
