//go:build linux && !race

package vfs

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// addressSpace is what the process has mapped, in bytes.
func addressSpace(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	check(t, err)
	pages, err := strconv.Atoi(strings.Fields(string(b))[0])
	check(t, err)
	return pages * os.Getpagesize()
}

// TestWordsAreFreed drops large tables that nobody holds.
func TestWordsAreFreed(t *testing.T) {
	const size, count = 16 << 20, 64
	before := addressSpace(t)
	for range count {
		NewWords(size / 8).Slice()[0] = 1
	}
	collectUntil(t, "tables unmapped", func() bool { return addressSpace(t)-before < size*count/2 })
}

// TestWordsAreOffHeap: the collector does not count them.
func TestWordsAreOffHeap(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := NewWords(8 << 20)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("the Go heap grew by %d bytes", grown)
	}
	runtime.KeepAlive(w)
}
