//go:build linux && !race

package db

import (
	"fmt"
	"runtime"
	"runtime/debug"
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

func guardedCopy(b []byte) (s string, faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faulted = recover() != nil }()
	return string(b), false
}
