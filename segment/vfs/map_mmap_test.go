//go:build (linux || darwin || freebsd) && !race

package vfs

import (
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// touch reads a byte and returns the address of the fault, if there is one.
func touch(p *byte) (b byte, fault uintptr) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if e, ok := recover().(interface{ Addr() uintptr }); ok {
			fault = e.Addr()
		}
	}()
	return *p, 0
}

// staleSlice returns a slice of a mapping that nobody holds.
//
//go:noinline
func staleSlice(t *testing.T, f File) []byte {
	m, err := f.Map(3 * int64(unix.Getpagesize()))
	check(t, err)
	b := m.Bytes()
	if got, fault := touch(&b[1]); got != 'e' || fault != 0 {
		t.Fatalf("a mapping in use reads %q, fault at %#x", got, fault)
	}
	runtime.KeepAlive(m)
	return b
}

func TestStaleSliceFaults(t *testing.T) {
	f := create(t, tempDir(t), "a", "hello")
	collectUntil(t, "mappings of other tests retired", noneLive)
	b := staleSlice(t, f)
	collectUntil(t, "mapping retired", noneLive)
	if s := MapStats(); s.Retired == 0 || s.RetiredBytes < len(b) {
		t.Errorf("after a mapping was retired: %+v", s)
	}

	// New mappings must not move in.
	var others []*Mapping
	for range 20 {
		m, err := f.Map(int64(len(b)))
		check(t, err)
		others = append(others, m)
	}
	for _, p := range []*byte{&b[1], &b[len(b)-1]} {
		if got, fault := touch(p); fault != uintptr(unsafe.Pointer(p)) {
			t.Errorf("a stale slice reads %q, fault at %#x, want %p", got, fault, p)
		}
	}
	runtime.KeepAlive(others)
}

// limitMaps lowers the budget of mappings for a test.
func limitMaps(t *testing.T, n int) {
	before := mapLimit
	mapLimit = func() int { return n }
	t.Cleanup(func() { mapLimit = before })
}

// TestMapBudget: live mappings and ranges that are held back share the budget.
// A new mapping takes the place of the oldest such range, and when only live
// ones are left it is refused, until one is retired.
func TestMapBudget(t *testing.T) {
	f := create(t, tempDir(t), "a", "hello")
	collectUntil(t, "mappings of other tests retired", noneLive)
	const budget = 20
	limitMaps(t, budget)
	var live []*Mapping
	for range budget {
		m, err := f.Map(5)
		check(t, err)
		live = append(live, m)
		if s := MapStats(); s.Live+s.Retired > budget {
			t.Fatalf("with a budget of %d: %+v", budget, s)
		}
	}
	if _, err := f.Map(5); !errors.Is(err, ErrNoMaps) {
		t.Fatalf("beyond the budget: %v", err)
	}
	if !MapsScarce(1) {
		t.Error("mappings are said not to be scarce")
	}
	clear(live[:1])
	collectUntil(t, "a mapping retired", func() bool { return MapStats().Live < budget })
	if _, err := f.Map(5); err != nil {
		t.Errorf("in place of a retired mapping: %v", err)
	}
	runtime.KeepAlive(live)
}

// TestRetiredRangesAreBounded retires more ranges than may be held back.
func TestRetiredRangesAreBounded(t *testing.T) {
	f := create(t, tempDir(t), "a", "hello")
	const maxRetired = 1000
	limitMaps(t, maxRetired)
	for range 2 * maxRetired {
		for { // until a collection has retired some the budget is spent
			if _, err := f.Map(5); err == nil {
				break
			}
			runtime.GC()
		}
	}
	collectUntil(t, "all mappings retired", noneLive)
	collectUntil(t, "ranges given back", func() bool { return MapStats().Retired == maxRetired })
	held.mu.Lock()
	defer held.mu.Unlock()
	sum := 0
	for _, r := range held.queue {
		sum += r.size
	}
	if s := MapStats(); s.RetiredBytes != sum || len(held.queue) != maxRetired {
		t.Errorf("%+v with %d ranges of %d bytes", s, len(held.queue), sum)
	}
}

// TestMapBytes: where addresses are few, live mappings and ranges that are held
// back share them as they share the number of mappings.
func TestMapBytes(t *testing.T) {
	f := create(t, tempDir(t), "a", "hello")
	collectUntil(t, "mappings of other tests retired", noneLive)
	const size, budget = 1 << 20, 8 << 20
	before := mapBytes
	mapBytes = budget
	t.Cleanup(func() { mapBytes = before })
	var live []*Mapping
	for range budget / size {
		m, err := f.Map(size)
		check(t, err)
		live = append(live, m)
		if s := MapStats(); s.LiveBytes+s.RetiredBytes > budget {
			t.Fatalf("with a budget of %d bytes: %+v", budget, s)
		}
	}
	if _, err := f.Map(1); !errors.Is(err, ErrNoMaps) || !strings.Contains(err.Error(), "8388608 bytes are mapped of 8388608") {
		t.Errorf("beyond the budget: %v", err)
	}
	if !MapsScarce(1) {
		t.Error("addresses are said not to be scarce")
	}
	clear(live)
	collectUntil(t, "all mappings retired", noneLive)
	if MapsScarce(size) || !MapsScarce(budget) {
		t.Error("what is scarce does not depend on the size")
	}
	for range 3 { // ranges held back make room
		_, err := f.Map(budget / 4)
		check(t, err)
	}
}
