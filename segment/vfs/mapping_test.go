package vfs

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// collectUntil forces collections until ok, as cleanups run some time after
// the collector has queued them.
func collectUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
		runtime.GC()
	}
}

func noneLive() bool { return MapStats().Live == 0 }

func TestMappingSeesGrowth(t *testing.T) {
	f := create(t, tempDir(t), "a", "one")
	const size = 1 << 20
	m, err := f.Map(size)
	check(t, err)
	b := m.Bytes()
	if len(b) != size || cap(b) != size {
		t.Fatalf("len %d, cap %d; want %d", len(b), cap(b), size)
	}
	if string(b[:3]) != "one" {
		t.Errorf("mapping starts with %q", b[:3])
	}
	more := bytes.Repeat([]byte("more"), 10_000)
	writeAll(t, f, more, 3)
	check(t, m.Refresh(3, 3+int64(len(more))))
	if !bytes.Equal(b[3:][:len(more)], more) {
		t.Error("the mapping does not show what was written after it was made")
	}
	runtime.KeepAlive(m)
}

func TestMappingOutlivesFile(t *testing.T) {
	d := tempDir(t)
	f := create(t, d, "a", "hello")
	m, err := f.Map(5)
	check(t, err)
	check(t, d.Remove("a"))
	check(t, f.Close())
	if string(m.Bytes()) != "hello" {
		t.Errorf("mapping shows %q", m.Bytes())
	}
	runtime.KeepAlive(m)
}

func TestOffset(t *testing.T) {
	f := create(t, tempDir(t), "a", "hello")
	m, err := f.Map(5)
	check(t, err)
	start := uintptr(unsafe.Pointer(&m.Bytes()[0]))
	for _, c := range []struct {
		addr uintptr
		off  int64
		ok   bool
	}{{start - 1, 0, false}, {start, 0, true}, {start + 4, 4, true}, {start + 5, 0, false}} {
		if off, ok := m.Offset(c.addr); off != c.off || ok != c.ok {
			t.Errorf("Offset(start%+d) = %d, %v", int64(c.addr-start), off, ok)
		}
	}
	runtime.KeepAlive(m)
}

func TestHeapMapping(t *testing.T) {
	m, err := HeapMapping(strings.NewReader("hello"), 8)
	check(t, err)
	if string(m.Bytes()) != "hello\x00\x00\x00" {
		t.Errorf("mapping shows %q", m.Bytes())
	}
	if _, err := HeapMapping(badReader{}, 8); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a file that can't be read: %v", err)
	}
}

type badReader struct{}

func (badReader) ReadAt([]byte, int64) (int, error) { return 0, io.ErrNoProgress }

func TestHeapMappingIsPoisoned(t *testing.T) {
	collectUntil(t, "mappings of other tests retired", noneLive)
	stale := staleHeapSlice(t)
	collectUntil(t, "heap mapping retired", noneLive)
	want := append([]byte{0xDB, 0xDB, 0xDB, 0xDB, 0xDB}, make([]byte, 95)...) // the file had 5 bytes
	if !bytes.Equal(stale, want) {
		t.Errorf("a stale slice shows %x", stale)
	}
}

// staleHeapSlice returns a slice of a mapping that nobody holds.
//
//go:noinline
func staleHeapSlice(t *testing.T) []byte {
	m, err := HeapMapping(strings.NewReader("hello"), 100)
	check(t, err)
	return m.Bytes()
}

func TestLiveCounts(t *testing.T) {
	f := create(t, tempDir(t), "a", "hello")
	collectUntil(t, "mappings of other tests retired", noneLive)
	m, err := f.Map(5)
	check(t, err)
	if s := MapStats(); s.Live != 1 || s.LiveBytes != 5 {
		t.Errorf("with one mapping of 5 bytes: %+v", s)
	}
	runtime.KeepAlive(m)
	collectUntil(t, "mapping retired", func() bool { s := MapStats(); return s.Live == 0 && s.LiveBytes == 0 })
}

func TestOwn(t *testing.T) {
	owner := new([64]byte)
	released := make(chan string, 1)
	Own(owner, func(c chan string) { c <- "released" }, released)
	runtime.GC()
	select {
	case <-released:
		t.Fatal("released while the owner is in use")
	case <-time.After(10 * time.Millisecond):
	}
	runtime.KeepAlive(owner)
	collectUntil(t, "release called", func() bool { return len(released) == 1 })
}
