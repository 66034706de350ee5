//go:build race

package db

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs"
)

// A reader never meets memory that was given up, however badly a collection is
// timed. Method: between all steps of every read, and before what was read is
// looked at, a collection is forced, and half of the time all segments are
// replaced before it. Under the race detector a retired mapping is poisoned,
// which is a race with whoever still reads it.
func TestCollectionBetweenSteps(t *testing.T) {
	const keys, reads = 3, 9
	db := openImpatient(t, "", Options{FS: newDisk(), Sync: SyncNever})
	value := func(k, n int) []byte {
		size := 1
		if k == 0 {
			size = testBlobSize // in a file of its own
		}
		return bytes.Repeat(fmt.Appendf(nil, "%d;", k), size+n%7)
	}
	for k := range keys {
		mustPut(t, db, fmt.Sprint(k), string(value(k, 0)))
	}
	steps, rng, within := 0, rand.New(rand.NewPCG(1, 2)), false
	hook := func() {
		if within {
			return // a step of the compaction
		}
		within = true
		defer func() { within = false }()
		steps++
		defer runtime.GC()
		if rng.IntN(2) == 0 {
			return // a reader whose segments are always too old never comes to an end
		}
		for k := range keys {
			mustPut(t, db, fmt.Sprint(k), string(value(k, steps)))
		}
		compactAll(t, db)
	}
	vfs.SetStepHook(hook)
	defer vfs.SetStepHook(nil)

	right := func(k int, b []byte, err error) {
		vfs.BetweenSteps()
		if err != nil || !bytes.Equal(b, bytes.Repeat(fmt.Appendf(nil, "%d;", k), len(b)/2)) {
			t.Errorf("key %d reads %.40q, %v", k, b, err)
		}
	}
	for n := range reads {
		k := n % keys
		key := fmt.Append(nil, k)
		b, err := db.Get(nil, key)
		right(k, b, err)
		err = db.View(key, func(b []byte) error { right(k, b, nil); return nil })
		right(k, nil, err)
		viaValue(t, db, key, func(b []byte, err error) { right(k, b, err) })
		viaSnapshot(t, db, func(key, b []byte, err error) { right(int(key[0]-'0'), b, err) })
	}
	if steps < 10*reads {
		t.Errorf("%d reads of each kind had %d steps", reads, steps)
	}
}

func viaValue(t *testing.T, db *DB, key []byte, right func([]byte, error)) {
	v, err := db.Value(key)
	if err != nil {
		t.Error(err)
		return
	}
	b, err := v.Bytes()
	right(b, err)
	v.Close()
}

func viaSnapshot(t *testing.T, db *DB, right func(key, b []byte, err error)) {
	s, err := db.Snapshot()
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	for key, e := range s.All() {
		if e.Err() != nil {
			t.Error(e.Err())
			return
		}
		b, err := e.Bytes()
		if errors.Is(err, ErrSnapshotExpired) {
			return
		}
		right(key, b, err)
	}
}
