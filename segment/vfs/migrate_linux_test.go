//go:build !race

package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// randomFile makes a file of so many random bytes.
func randomFile(t *testing.T, d *Dir, name string, size int) (File, []byte) {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return create(t, d, name, string(data)), data
}

// TestMigrate: whoever reads a mapping while it moves to memory, and later,
// sees the same bytes. Method: readers compare pieces in random places while
// one mapping after the other is moved.
func TestMigrate(t *testing.T) {
	const size, mappings, wanted = 9 << 20, 8, 1_000_000
	d := tempDir(t)
	f, data := randomFile(t, d, "a", size)
	var current atomic.Pointer[Mapping]
	var compares, wrong atomic.Int64
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !stop.Load() {
				m := current.Load()
				if m == nil {
					continue
				}
				for range 100 {
					at := rand.IntN(size - 64)
					if !bytes.Equal(m.Bytes()[at:at+64], data[at:at+64]) {
						wrong.Add(1)
					}
				}
				compares.Add(100)
				runtime.KeepAlive(m)
			}
		})
	}
	for moved := 0; moved < mappings || compares.Load() < wanted; moved++ {
		m, err := f.Map(size + 1<<20)
		check(t, err)
		current.Store(m)
		check(t, m.Migrate(size))
		runtime.Gosched()
	}
	stop.Store(true)
	readers.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d of %d compares went wrong", wrong.Load(), compares.Load())
	}
	t.Logf("%d compares", compares.Load())
}

// TestMigrateLetsGo: a file that has lost its name gives its space back when its
// mapping has been moved and its descriptor dropped, and what was mapped is then
// retired like any other mapping.
func TestMigrateLetsGo(t *testing.T) {
	const size = 5<<20 + 1000
	d := tempDir(t)
	f, data := randomFile(t, d, "file-to-forget", size)
	collectUntil(t, "mappings of other tests retired", noneLive)
	m, err := f.Map(size + 2<<20)
	check(t, err)
	check(t, d.Remove("file-to-forget"))
	check(t, m.Migrate(size))
	check(t, m.Migrate(size)) // once is enough
	if s := MapStats(); s.Migrated != 1 || s.MigratedBytes != size {
		t.Errorf("after a move of %d bytes: %+v", size, s)
	}
	if !bytes.Equal(m.Bytes()[:size], data) {
		t.Error("bytes have changed")
	}
	if _, fault := touch(&m.Bytes()[size+1<<20]); fault == 0 {
		t.Error("the memory behind the end can be touched")
	}

	held := f.OS()
	f.Drop()
	if f.OS() != nil {
		t.Error("there is an OS file after Drop")
	}
	if _, err := f.Size(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Size of a dropped file: %v", err)
	}
	var b [10]byte
	if _, err := held.ReadAt(b[:], 0); err != nil || !bytes.Equal(b[:], data[:10]) {
		t.Errorf("who still uses the file reads %x, %v", b, err)
	}
	held = nil
	collectUntil(t, "file closed", func() bool { return !processHolds(t, "file-to-forget") })

	stale := m.Bytes()[:size]
	if !bytes.Equal(stale, data) {
		t.Error("bytes have changed with the file gone")
	}
	runtime.KeepAlive(m)
	m = nil
	collectUntil(t, "mapping retired", noneLive)
	if s := MapStats(); s.Migrated != 0 || s.MigratedBytes != 0 {
		t.Errorf("after the mapping was retired: %+v", s)
	}
	for _, p := range []*byte{&stale[0], &stale[4<<20], &stale[size-1]} {
		if _, fault := touch(p); fault != uintptr(unsafe.Pointer(p)) {
			t.Error("a stale slice of a moved mapping can be read")
		}
	}
}

// processHolds reports whether this process has a file open or mapped.
func processHolds(t *testing.T, name string) bool {
	maps, err := os.ReadFile("/proc/self/maps")
	check(t, err)
	if strings.Contains(string(maps), name) {
		return true
	}
	open, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	for _, e := range open {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.Contains(target, name) {
			return true
		}
	}
	return false
}

// TestMigrateDamaged: a file that can't be read to the end is not moved, and
// stays mapped as it is.
func TestMigrateDamaged(t *testing.T) {
	const size = 9 << 20
	d := tempDir(t)
	f, data := randomFile(t, d, "a", size)
	m, err := f.Map(size)
	check(t, err)
	check(t, f.OS().Truncate(5<<20))
	var fault *FaultError
	if err := m.Migrate(size); !errors.As(err, &fault) || fault.Offset < 4<<20 || fault.Path != f.OS().Name() {
		t.Errorf("moving a file that was cut: %v", err)
	}
	if !bytes.Equal(m.Bytes()[:5<<20], data[:5<<20]) {
		t.Error("bytes have changed")
	}
	if err := m.Populate(6<<20, 1<<20); !errors.As(err, &fault) || fault.Offset != 6<<20 || !errors.Is(err, unix.EIO) {
		t.Errorf("Populate behind the end: %v", err)
	}
	check(t, m.Populate(1<<20+100, 1<<20))
	runtime.KeepAlive(m)
}

// TestGuard: a fault in a mapped file is an error that says where; any other
// fault and panic goes on; and the caller's own setting is put back.
func TestGuard(t *testing.T) {
	const size = 1 << 20
	d := tempDir(t)
	f, _ := randomFile(t, d, "a", size)
	m, err := f.Map(size)
	check(t, err)
	check(t, f.OS().Truncate(0))
	guarded := func(read func()) (err error) {
		defer EndGuard(BeginGuard(), &err)
		read()
		return nil
	}
	page := unix.Getpagesize()
	var fault *FaultError
	var got byte
	err = guarded(func() { got = m.Bytes()[3*page+5] })
	if !errors.As(err, &fault) || *fault != (FaultError{f.OS().Name(), int64(3*page + 5)}) || !errors.Is(err, unix.EIO) {
		t.Errorf("a fault in the mapping: %v, reads %x", err, got)
	}
	foreign, err := unix.Mmap(-1, 0, page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	check(t, err)
	for name, do := range map[string]func(){
		"fault elsewhere": func() { _ = string(foreign[:1]) },
		"index":           func() { _ = foreign[len(foreign):][0] },
		"panic":           func() { panic("of the user") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			t.Errorf("%s: %v", name, guarded(do))
		}()
	}
	if BeginGuard() {
		t.Error("the setting of before is not put back")
	}
	EndGuard(false, new(error))
	runtime.KeepAlive(m)
}

// TestOccupy: a range that lost its pages can't be mapped by anybody else, and
// one that has them keeps them. Method: the middle one of three pages is unmapped.
func TestOccupy(t *testing.T) {
	page := os.Getpagesize()
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(3*page), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	check(t, err)
	all := region{addr: uintptr(p), size: 3 * page}
	defer func() { check(t, unix.MunmapPtr(all.pointer(), uintptr(all.size))) }()
	hole := region{addr: all.addr + uintptr(page), size: page}
	check(t, unix.MunmapPtr(hole.pointer(), uintptr(page)))
	for _, at := range []region{hole, {addr: all.addr, size: page}} {
		occupy(at)
	}
	const flags = unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_FIXED_NOREPLACE
	if _, err := unix.MmapPtr(-1, 0, hole.pointer(), uintptr(page), unix.PROT_READ, flags); err != unix.EEXIST {
		t.Errorf("mapping something else there: %v", err)
	}
	if _, fault := touch((*byte)(hole.pointer())); fault != hole.addr {
		t.Errorf("fault at %#x, want %#x", fault, hole.addr)
	}
	if b, fault := touch((*byte)(all.pointer())); b != 0 || fault != 0 {
		t.Errorf("beside it: %x, fault at %#x", b, fault)
	}
}
