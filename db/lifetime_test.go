//go:build linux && !race

package db

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// foldWithOpenValue makes a store of several small segments, takes a Value in
// one of them and then writes, which folds them away.
func foldWithOpenValue(t *testing.T) (*DB, *Value) {
	dir := t.TempDir()
	for run := range 4 {
		db := open(t, dir, nil)
		mustPut(t, db, fmt.Sprint("key", run), fmt.Sprint("value", run))
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	db := open(t, dir, nil)
	v, err := db.Value([]byte("key3"))
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "another", "x")
	if n := len(db.Stats().Segments); n != 2 {
		t.Fatalf("%d segments after the fold", n)
	}
	return db, v
}

// What a handle holds outlives the segment's file. When the handle is closed,
// the collector retires the mapping, and a slice that was kept faults: it
// never shows other bytes.
func TestRetiredSegment(t *testing.T) {
	db, v := foldWithOpenValue(t)
	value, err := v.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		runtime.GC()
		if string(value) != "value3" {
			t.Fatalf("value changed to %q", value)
		}
	}
	v.Close()
	v = nil
	for deadline := time.Now().Add(10 * time.Second); ; runtime.GC() {
		got, faulted := guardedCopy(value)
		if faulted {
			break
		}
		if got != "value3" {
			t.Fatalf("value changed to %q", got)
		}
		if time.Now().After(deadline) {
			t.Fatal("the mapping of a retired segment is still there")
		}
	}
	mustGet(t, db, "key3", "value3")
}

// What is moved to memory is no longer mapped from its file, and the descriptor
// is closed too, so the file's space is free while the Value is still open.
func TestMovedSegmentLetsFileGo(t *testing.T) {
	db := openImpatient(t, t.TempDir(), Options{})
	mustPut(t, db, "k", "old")
	v := mustValue(t, db, "k")
	defer v.Close()
	file := v.Extents()[0].File.Name()
	mustPut(t, db, "k", "new")
	compactAll(t, db)
	if !processHolds(t, file) {
		t.Fatal("the segment is gone too soon")
	}
	reclaimUntil(t, db, "the file is let go", func(Pinned) bool {
		runtime.GC()
		return !processHolds(t, file)
	})
	mustBytes(t, v, []byte("old"))
}

// processHolds reports whether this process has a file open or mapped.
func processHolds(t *testing.T, name string) bool {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	held := strings.Contains(string(maps), name)
	for _, e := range open {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		held = held || strings.Contains(target, name)
	}
	return held
}

func guardedCopy(b []byte) (s string, faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faulted = recover() != nil }()
	return string(b), false
}
