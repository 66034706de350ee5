package fuzz

import (
	"strconv"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// shortAlphabet is what TestCrashExhaustive makes histories of. There are two
// keys.
var shortAlphabet = []operation{
	{kind: opPut, key: 0, size: 10},
	{kind: opPut, key: 1, size: 700},  // of several sectors
	{kind: opPut, key: 0, size: 4000}, // needs another segment, or a file of its own
	{kind: opDelete, key: 0},
	{kind: opBatch, batch: []operation{{kind: opPut, key: 0, size: 600}, {kind: opDelete, key: 1}, {kind: opPut, key: 1, size: 20}}},
	{kind: opSync},
	{kind: opAdvance, delay: syncAndMark},
	{kind: opReopen},
	{kind: opKill},
}

const syncAndMark = defaultSyncEvery + watermark // the timers have done their work

// shortSettings are the stores they run on.
var shortSettings = []db.Options{
	{Sync: db.SyncAlways, SegmentSize: 4 << 10},
	{Sync: db.SyncNever, SegmentSize: 4 << 10},
	{Sync: db.SyncInterval, SegmentSize: 4 << 10, BlobSize: 4 << 10},
}

// TestCrashExhaustive promises what TestCrash does, for all histories of up to
// two operations, or as many as asked for, out of nine on two keys. Method:
// each of that length is run and cut after every file operation. Cuts in a beginning that several
// histories share are checked in the first of them. Nothing is left to chance
// but the details of a disk state, and these are the same every time.
func TestCrashExhaustive(t *testing.T) {
	length, all, step := number(t, "CROWFLY_DEPTH", 2), 1, 1
	for range length {
		all *= len(shortAlphabet)
	}
	if underRace {
		step = 7
	}
	for i, opts := range shortSettings {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			points := 0
			for n := 0; n < all; n += step {
				h := newShortHistory(n, length, opts)
				if !h.run() {
					t.Fatal(h.describe())
				}
				points += h.points
			}
			t.Logf("%d points of %d histories", points, (all+step-1)/step)
		})
	}
}

// newShortHistory is the n-th. It is cut from the operation on that makes it
// differ from all before it: n is a number of which the digits are operations.
func newShortHistory(n, length int, opts db.Options) *crashHistory {
	h := &crashHistory{seed: uint64(n), opts: opts, keys: 2, from: -1, ops: make([]operation, length), rounds: 1}
	for i := length - 1; i >= 0; i-- {
		digit := n % len(shortAlphabet)
		h.ops[i], n = shortAlphabet[digit], n/len(shortAlphabet)
		if digit > 0 {
			h.from = max(h.from, i)
		}
	}
	return h
}
