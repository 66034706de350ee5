package db

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// heldSlice is a slice that a handle gave out, with what it must show.
type heldSlice struct {
	slice, want []byte
	close       func() error // nil if the handle was dropped
}

// What handles gave out stays as it is across a thousand compactions, each of
// which removes every segment there was, with collections, moves to memory and
// expiring snapshots in between. Method: all slices are compared again and again
// while readers come and go; some handles are dropped without Close, which keeps
// what they gave out and is reported.
func TestHeldAcrossCompactions(t *testing.T) {
	compactions := 1000
	if testing.Short() || underRace {
		compactions = 100
	}
	rng := rand.New(rand.NewPCG(1, 2))
	db := openImpatient(t, "", Options{FS: newDisk(), MaxPinned: 128 << 10, Sync: SyncNever})
	value := func(key, n int) []byte {
		size := 100
		if key == 0 {
			size = testBlobSize
		}
		return bytes.Repeat(fmt.Appendf(nil, "%d/%d;", key, n), size/4)
	}
	const keys = 5
	latest := make([][]byte, keys)
	var held, leaked []heldSlice
	for n := range compactions {
		for k := range keys {
			if latest[k] == nil || rng.IntN(2) == 0 {
				latest[k] = value(k, n)
				putRoomy(t, db, fmt.Sprint(k), latest[k])
			}
		}
		k := rng.IntN(keys)
		held = append(held, holdValue(t, db, fmt.Sprint(k), latest[k]))
		if n%10 == 0 {
			held = append(held, holdSnapshot(t, db, fmt.Sprint(k), latest[k]))
		}
		compactAll(t, db)
		if n%20 == 0 {
			db.pinned.every = 0
			db.reclaim()
		}
		for len(held) > 30 {
			i := rng.IntN(len(held))
			h := held[i]
			held = slices.Delete(held, i, i+1)
			checkHeld(t, h)
			if n%leakEvery == 0 {
				h.close = nil
				leaked = append(leaked, h)
				break
			}
			h.close()
		}
		if n%10 == 0 {
			checkHeld(t, held...)
			checkHeld(t, leaked...)
		}
	}
	s := db.Stats()
	if s.Pinned.Collections == 0 || s.Pinned.Revoked == 0 {
		t.Errorf("nothing was at stake: %+v", s.Pinned)
	}
	t.Logf("%+v, %d handles, %d of them dropped", s.Pinned, len(s.Handles), len(leaked))
	held = nil
	reclaimUntil(t, db, "dropped handles are reported", func(Pinned) bool {
		runtime.GC()
		return leaks(db) >= len(leaked)
	})
	checkHeld(t, leaked...)
}

// leakEvery is how many compactions there are to a handle that is dropped.
const leakEvery = 25

// leaks counts the handles that are known to have been dropped.
func leaks(db *DB) (n int) {
	for _, h := range db.Stats().Handles {
		if h.Leaked {
			n++
		}
	}
	return n
}

// putRoomy puts a value although readers may hold too much.
func putRoomy(t *testing.T, db *DB, key string, value []byte) {
	t.Helper()
	db.pinned.mu.Lock()
	db.pinned.stuck = false
	db.pinned.mu.Unlock()
	mustPut(t, db, key, string(value))
}

func checkHeld(t *testing.T, held ...heldSlice) {
	t.Helper()
	for _, h := range held {
		if !bytes.Equal(h.slice, h.want) {
			t.Fatalf("a slice of %.40q became %.40q", h.want, h.slice)
		}
	}
}

func holdValue(t *testing.T, db *DB, key string, want []byte) heldSlice {
	t.Helper()
	v := mustValue(t, db, key)
	return heldSlice{mustBytes(t, v, want), want, v.Close}
}

func holdSnapshot(t *testing.T, db *DB, key string, want []byte) heldSlice {
	t.Helper()
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for found, e := range s.Range([]byte(key), nil) {
		b, err := e.Bytes()
		if err != nil || string(found) != key {
			t.Fatalf("%q: %v", found, err)
		}
		return heldSlice{b, want, s.Close}
	}
	t.Fatal("no such key")
	runtime.KeepAlive(s)
	return heldSlice{}
}
