package fuzz

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// realDisk is a real directory whose operations can be made to fail. One that
// fails does not reach the system. Its clock is simulated, so that timers fire in
// the goroutine of the test and every run does the same, and syncs end at once:
// nobody cuts the power.
type realDisk struct {
	vfs.FS
	clock     *simdisk.Disk
	forgotten *forgotten

	mu   sync.Mutex
	ops  int
	fail func(op, name string, n int) error
}

// newRealDisk makes the directory, without a sync.
func newRealDisk(path string, f *forgotten) (*realDisk, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	dir, err := vfs.OpenDir(path, false)
	if err != nil {
		return nil, err
	}
	return &realDisk{FS: dir, clock: simdisk.New(), forgotten: f}, nil
}

// copy copies the directory to another one beside it.
func (d *realDisk) copy() (*realDisk, error) {
	next, err := newRealDisk(d.Path()+"-killed", d.forgotten)
	if err != nil {
		return nil, err
	}
	names, err := d.FS.List()
	for _, name := range names {
		b, readErr := os.ReadFile(filepath.Join(d.Path(), name))
		if errors.Is(readErr, fs.ErrNotExist) {
			continue // the collector has removed a large value
		}
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(next.Path(), name), b, 0o644))
	}
	return next, err
}

// Fail is that of a simulated disk.
func (d *realDisk) Fail(f func(op, name string, n int) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

func (d *realDisk) Advance(delay time.Duration) { d.clock.Advance(delay) }

func (d *realDisk) AfterFunc(delay time.Duration, f func()) (stop func() bool) {
	return d.clock.AfterFunc(delay, f)
}

func (d *realDisk) Now() time.Time { return d.clock.Now() }

// ask returns the error that an operation has to fail with.
func (d *realDisk) ask(op, name string) error {
	d.mu.Lock()
	d.ops++
	n, fail := d.ops, d.fail
	d.mu.Unlock()
	if fail == nil {
		return nil
	}
	if err := fail(op, name, n); err != nil {
		return &fs.PathError{Op: op, Path: filepath.Join(d.Path(), name), Err: err}
	}
	return nil
}

// try does an operation that has no result, unless it has to fail.
func (d *realDisk) try(op, name string, do func() error) error {
	if err := d.ask(op, name); err != nil {
		return err
	}
	return do()
}

// get is try for an operation with a result.
func get[T any](d *realDisk, op, name string, do func() (T, error)) (result T, err error) {
	if err = d.ask(op, name); err != nil {
		return result, err
	}
	return do()
}

func (d *realDisk) Create(name string) (vfs.File, error) {
	f, err := get(d, simdisk.OpCreate, name, func() (vfs.File, error) { return d.FS.Create(name) })
	return d.wrap(f, err)
}

func (d *realDisk) Open(name string) (vfs.File, error) {
	f, err := get(d, simdisk.OpOpen, name, func() (vfs.File, error) { return d.FS.Open(name) })
	return d.wrap(f, err)
}

func (d *realDisk) Rename(from, to string) error {
	return d.try(simdisk.OpRename, from, func() error { return d.FS.Rename(from, to) })
}

func (d *realDisk) Remove(name string) error {
	return d.try(simdisk.OpRemove, name, func() error { return d.FS.Remove(name) })
}

func (d *realDisk) Trim(name string) error {
	return d.try(simdisk.OpTrim, name, func() error { return d.FS.Trim(name) })
}

func (d *realDisk) List() ([]string, error) { return get(d, simdisk.OpList, "", d.FS.List) }

func (d *realDisk) SyncDir() error { return d.ask(simdisk.OpSyncDir, "") }

func (d *realDisk) Lock(name string) (unlock func() error, err error) {
	return get(d, simdisk.OpLock, name, func() (func() error, error) { return d.FS.Lock(name) })
}

func (d *realDisk) Locked(name string) (bool, error) {
	return get(d, simdisk.OpLocked, name, func() (bool, error) { return d.FS.Locked(name) })
}

// realFile is a file of a realDisk.
type realFile struct {
	vfs.File
	disk *realDisk
	end  *fileEnd
}

func (d *realDisk) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	end := &fileEnd{path: filepath.Join(d.Path(), f.Name()), note: d.forgotten}
	r := &realFile{f, d, end}
	vfs.Own(r, (*fileEnd).collected, end)
	return r, nil
}

func (f *realFile) ReadAt(p []byte, off int64) (int, error) {
	return get(f.disk, simdisk.OpReadAt, f.Name(), func() (int, error) { return f.File.ReadAt(p, off) })
}

// WriteVec writes less than asked if it has to fail with a [simdisk.Short].
func (f *realFile) WriteVec(bufs [][]byte, off int64) (int, error) {
	err := f.disk.ask(simdisk.OpWriteVec, f.Name())
	if short, ok := errors.AsType[simdisk.Short](err); ok {
		bufs, err = [][]byte{head(bufs, short.N)}, nil
	}
	if err != nil {
		return 0, err
	}
	return f.File.WriteVec(bufs, off)
}

// head returns the first n bytes, or all if there are fewer.
func head(bufs [][]byte, n int) []byte {
	all := slices.Concat(bufs...)
	return all[:min(n, len(all))]
}

func (f *realFile) Datasync() error { return f.disk.ask(simdisk.OpDatasync, f.Name()) }

func (f *realFile) Sync() error { return f.disk.ask(simdisk.OpSync, f.Name()) }

func (f *realFile) Reserve(off, n int64) error {
	return f.disk.try(simdisk.OpReserve, f.Name(), func() error { return f.File.Reserve(off, n) })
}

func (f *realFile) Trim() error { return f.disk.try(simdisk.OpTrim, f.Name(), f.File.Trim) }

func (f *realFile) Size() (int64, error) {
	return get(f.disk, simdisk.OpSize, f.Name(), f.File.Size)
}

func (f *realFile) Map(size int64) (*vfs.Mapping, error) {
	m, err := get(f.disk, simdisk.OpMap, f.Name(), func() (*vfs.Mapping, error) { return f.File.Map(size) })
	f.end.expected.Store(f.end.expected.Load() || err == nil)
	return m, err
}

func (f *realFile) Close() error {
	f.end.expected.Store(true)
	return f.File.Close()
}

// fileEnd is what the collector finds out when nobody has a file any more. Only
// one that was mapped may be left open until then.
type fileEnd struct {
	path     string
	expected atomic.Bool // it was closed, or is one of those
	note     *forgotten
}

func (e *fileEnd) collected() {
	if !e.expected.Load() {
		e.note.add(e.path)
	}
}

// forgotten are the files that were left to the collector without need.
type forgotten struct {
	mu    sync.Mutex
	paths []string
}

func (f *forgotten) add(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = append(f.paths, path)
}

func (f *forgotten) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.paths)
}
