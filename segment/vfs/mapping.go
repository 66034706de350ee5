package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Mapping is a read-only view of a file from its start.
//
// Nobody unmaps it. When a Mapping is unreachable the collector retires its
// memory, see [Own]; so whoever uses a slice of Bytes keeps the Mapping alive
// to the end of that use. A slice that is used later faults, or under the race
// detector is a reported race; for it to show another file, thousands of
// mappings must have been retired in between.
//
// Under the race detector, which can't see memory it did not allocate, and on
// systems whose maps don't follow writes to the file, a Mapping is a copy on
// the Go heap, and the writer calls Refresh after it wrote.
type Mapping struct {
	bytes []byte
	path  string      // of the file of a real mapping
	file  io.ReaderAt // nil for a real mapping
	copy  heapCopy    // of a mapping that is none

	migrating sync.Mutex
	moved     *atomic.Int64 // bytes that Migrate moved; shared with the cleanup
}

// heapCopy is a Mapping on the Go heap, as far as its cleanup needs it: nothing
// that could lead back to the Mapping, such as its file.
type heapCopy struct {
	bytes  []byte
	filled *atomic.Int64 // end of what was ever read from the file
	moved  *atomic.Int64 // see Mapping
}

// Bytes returns the whole mapping: len and cap are the size asked for, which
// may be more than the file has. Bytes beyond the end of the file must not be
// touched, and nothing may be written.
func (m *Mapping) Bytes() []byte { return m.bytes }

// Refresh shows what was written to the file in [from, to). Readers must not
// read there before the writer, after Refresh, has told them to. For a real
// mapping there is nothing to do.
func (m *Mapping) Refresh(from, to int64) error {
	if m.file == nil {
		return nil
	}
	n, err := m.file.ReadAt(m.bytes[from:to], from)
	m.copy.filled.Store(max(m.copy.filled.Load(), from+int64(n)))
	if err == io.EOF {
		return nil
	}
	return err
}

// Offset returns the offset in the file of a memory address, and whether it
// lies in the mapping at all. It is for those who recover from a fault.
func (m *Mapping) Offset(addr uintptr) (int64, bool) {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(m.bytes)))
	if addr < start || addr-start >= uintptr(len(m.bytes)) {
		return 0, false
	}
	return int64(addr - start), true
}

// HeapMapping returns a Mapping that is a copy of size bytes of r on the Go
// heap. What r does not have yet is zero until Refresh.
func HeapMapping(r io.ReaderAt, size int64) (*Mapping, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	if mapCount.liveBytes.Load() > mapBytes-size {
		return nil, outOfBytes(size)
	}
	h := heapCopy{make([]byte, size), new(atomic.Int64), new(atomic.Int64)}
	m := &Mapping{bytes: h.bytes, file: r, copy: h, moved: h.moved}
	if err := m.Refresh(0, size); err != nil {
		return nil, err
	}
	mapCount.add(len(m.bytes))
	Own(m, poison, h)
	return m, nil
}

// poison makes a stale slice of a heap mapping recognizable. Under the race
// detector these writes race with any later read of it. Bytes that the file
// never had are in no slice, and left alone.
func poison(h heapCopy) {
	filled := h.bytes[:h.filled.Load()]
	for i := range filled {
		filled[i] = 0xDB
	}
	mapCount.drop(len(h.bytes), h.moved)
}

// Migrate moves the first n bytes from the file to memory, under the same
// addresses, and makes the rest inaccessible. Whoever reads meanwhile or later
// does not notice. When it returns nil nothing of the file is mapped any more, so
// that a file without a name and an open descriptor gives its space back. It
// fails with errors.ErrUnsupported where the system can't, and with a
// *FaultError if the file can't be read. A copy on the Go heap is in memory
// already.
func (m *Mapping) Migrate(n int64) error {
	defer runtime.KeepAlive(m)
	m.migrating.Lock()
	defer m.migrating.Unlock()
	if n <= 0 || n > int64(len(m.bytes)) {
		return fmt.Errorf("%w: %d of %d bytes", fs.ErrInvalid, n, len(m.bytes))
	}
	if m.moved.Load() > 0 {
		return nil
	}
	if m.file == nil {
		if err := m.moveToMemory(n); err != nil {
			return err
		}
	}
	m.moved.Store(n)
	mapCount.migrated.Add(1)
	mapCount.migratedBytes.Add(n)
	return nil
}

// populateMin is how much must be about to be read for Populate to be worth a
// system call.
const populateMin = 64 << 10

// Populate brings the pages of [from, from+n) in, if these are many. To touch a
// page that is not there holds up a processor of the Go scheduler for as long
// as the disk takes; a system call does not. What the disk can't read is a
// *FaultError.
func (m *Mapping) Populate(from, n int64) error {
	if n < populateMin {
		return nil
	}
	return m.Prefetch(from, n)
}

// Prefetch is Populate for any number of pages.
func (m *Mapping) Prefetch(from, n int64) error {
	if m.file != nil || n <= 0 {
		return nil
	}
	defer runtime.KeepAlive(m)
	return m.populate(from, n)
}

// mapped are the real mappings that are not retired, to tell what a fault is
// about.
var mapped mappedFiles

type mappedFiles struct {
	mu    sync.Mutex
	areas map[uintptr]area // by address
}

type area struct {
	size int
	path string
}

func (f *mappedFiles) add(addr uintptr, a area) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.areas == nil {
		f.areas = make(map[uintptr]area)
	}
	f.areas[addr] = a
}

func (f *mappedFiles) remove(addr uintptr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.areas, addr)
}

// find returns the file and the offset in it of an address, or nil.
func (f *mappedFiles) find(addr uintptr) *FaultError {
	f.mu.Lock()
	defer f.mu.Unlock()
	for start, a := range f.areas {
		if addr >= start && addr-start < uintptr(a.size) {
			return &FaultError{a.path, int64(addr - start)}
		}
	}
	return nil
}

// mapLimit is how many mappings this process may have for files: a quarter of
// what the system allows, as running out kills the Go runtime.
var mapLimit = sync.OnceValue(func() int { return systemMaps() / 4 })

// mapBytes is how many bytes of addresses the mappings of this process may take
// for files. A 64-bit process does not run out of them. One of 32 bits has 2 to 4
// GiB for everything, and the Go runtime ends the process when it finds none.
var mapBytes = func() int64 {
	if strconv.IntSize == 32 {
		return 1 << 30
	}
	return math.MaxInt64
}()

// MapsScarce reports whether so many mappings or addresses are in use that what
// can do without a mapping of size bytes should.
func MapsScarce(size int64) bool {
	return int(mapCount.live.Load()) >= mapLimit()/4*3 || mapCount.liveBytes.Load() > mapBytes/4*3-size
}

// outOfBytes is ErrNoMaps for a mapping of size bytes that mapBytes does not allow.
func outOfBytes(size int64) error {
	return fmt.Errorf("%w: %d bytes are mapped of %d that may be, no room for %d", ErrNoMaps, mapCount.liveBytes.Load(), mapBytes, size)
}

// checkSize refuses sizes that no mapping can have.
func checkSize(size int64) error {
	if size <= 0 || int64(int(size)) != size {
		return fmt.Errorf("%w: mapping of %d bytes", fs.ErrInvalid, size)
	}
	return nil
}

// Maps counts the mappings of this process.
type Maps struct {
	// Live mappings are reachable, or not yet found unreachable.
	Live, LiveBytes int
	// Migrated ones among them are in memory and hold nothing of their file.
	Migrated, MigratedBytes int
	// Retired address ranges are held back, inaccessible, so that a stale
	// slice faults. They use no memory, but count towards the system's limit
	// on mappings.
	Retired, RetiredBytes int
	// Limit is how many live and retired ones there may be together.
	Limit int
}

// MapStats returns the current counts. Each is right for itself; together they
// may straddle a change.
func MapStats() Maps {
	return Maps{
		Live:          int(mapCount.live.Load()),
		LiveBytes:     int(mapCount.liveBytes.Load()),
		Migrated:      int(mapCount.migrated.Load()),
		MigratedBytes: int(mapCount.migratedBytes.Load()),
		Retired:       int(mapCount.retired.Load()),
		RetiredBytes:  int(mapCount.retiredBytes.Load()),
		Limit:         mapLimit(),
	}
}

var mapCount mapCounters

type mapCounters struct {
	live, liveBytes, migrated, migratedBytes, retired, retiredBytes atomic.Int64
}

func (c *mapCounters) add(size int) {
	c.live.Add(1)
	c.liveBytes.Add(int64(size))
}

func (c *mapCounters) drop(size int, moved *atomic.Int64) {
	c.live.Add(-1)
	c.liveBytes.Add(-int64(size))
	if n := moved.Load(); n > 0 {
		c.migrated.Add(-1)
		c.migratedBytes.Add(-n)
	}
}
