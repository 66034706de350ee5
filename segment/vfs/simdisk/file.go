package simdisk

import (
	"errors"
	"io/fs"
	"math"
	"os"

	"github.com/crowfly/crowfly/segment/vfs"
)

// file is an open file. The lock of its disk guards it.
type file struct {
	disk     *Disk
	ino      *inode
	name     string
	writable bool
	closed   bool
	handle   *handle
}

var _ vfs.File = (*file)(nil)

func (f *file) Name() string { return f.name }

// ReadAt implements [vfs.File].
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.disk.reading(OpReadAt, f.name); err != nil {
		return 0, err
	}
	unlock, err := f.lock(OpReadAt, false)
	defer unlock()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError(OpReadAt, f.name, fs.ErrInvalid)
	}
	return f.ino.read(p, off)
}

// WriteVec implements [vfs.File].
func (f *file) WriteVec(bufs [][]byte, off int64) (int, error) {
	n, err := f.disk.begin(OpWriteVec, f.name)
	defer f.disk.end(n, OpWriteVec)
	limit := math.MaxInt
	if short, ok := errors.AsType[Short](err); ok {
		limit, err = short.N, nil
	}
	if err != nil {
		return 0, err
	}
	unlock, err := f.lock(OpWriteVec, true)
	defer unlock()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError(OpWriteVec, f.name, fs.ErrInvalid)
	}
	if err := f.disk.grow(f.ino, off+int64(min(length(bufs), limit))); err != nil {
		return 0, pathError(OpWriteVec, f.name, err)
	}
	return f.ino.write(bufs, int(off), limit), nil
}

// Datasync implements [vfs.File].
func (f *file) Datasync() error { return f.sync(OpDatasync) }

// Writeback implements [vfs.File]. What was not synced may be on the disk or
// not, as it was.
func (f *file) Writeback(off, n int64) error { return nil }

// Sync implements [vfs.File].
func (f *file) Sync() error { return f.sync(OpSync) }

func (f *file) sync(op string) error {
	n, failed := f.disk.begin(op, f.name)
	defer f.disk.end(n, op)
	unlock, err := f.lock(op, false)
	defer unlock()
	switch {
	case err != nil:
		return err
	case failed != nil:
		f.ino.failSync()
		return failed
	}
	f.ino.sync()
	return nil
}

// Reserve implements [vfs.File].
func (f *file) Reserve(off, n int64) error {
	return f.set(OpReserve, func() error {
		if err := f.disk.grow(f.ino, off+n); err != nil {
			return pathError(OpReserve, f.name, err)
		}
		f.ino.reserved = max(f.ino.reserved, off+n)
		return nil
	})
}

// Trim implements [vfs.File].
func (f *file) Trim() error {
	return f.set(OpTrim, func() error {
		f.ino.reserved = 0
		return nil
	})
}

// set is an operation of a writer on the blocks of the file.
func (f *file) set(op string, do func() error) error {
	n, err := f.disk.begin(op, f.name)
	defer f.disk.end(n, op)
	if err != nil {
		return err
	}
	unlock, err := f.lock(op, true)
	defer unlock()
	if err != nil {
		return err
	}
	return do()
}

// Size implements [vfs.File].
func (f *file) Size() (int64, error) {
	if err := f.disk.reading(OpSize, f.name); err != nil {
		return 0, err
	}
	unlock, err := f.lock(OpSize, false)
	defer unlock()
	if err != nil {
		return 0, err
	}
	return int64(len(f.ino.cached)), nil
}

// Map implements [vfs.File].
func (f *file) Map(size int64) (*vfs.Mapping, error) {
	if err := f.disk.reading(OpMap, f.name); err != nil {
		return nil, err
	}
	m, err := vfs.HeapMapping(pages{f}, size)
	if err != nil {
		return nil, pathError(OpMap, f.name, err)
	}
	f.handle.mapped.Store(true)
	return m, nil
}

// pages is what a mapping reads. It is the page cache and no system call, so
// it is not counted, does not fail and outlives Close.
type pages struct{ file *file }

func (p pages) ReadAt(b []byte, off int64) (int, error) {
	p.file.disk.mu.Lock()
	defer p.file.disk.mu.Unlock()
	return p.file.ino.read(b, off)
}

// OS implements [vfs.File].
func (f *file) OS() *os.File { return nil }

// Drop implements [vfs.File].
func (f *file) Drop() { _ = f.Close() }

// Close implements [vfs.File].
func (f *file) Close() error {
	unlock, err := f.lock("Close", false)
	defer unlock()
	f.closed = true
	f.handle.closed()
	return err
}

// lock locks the disk for an operation on the file, and says whether the file
// may be used for it. The caller calls unlock in any case.
func (f *file) lock(op string, write bool) (unlock func(), err error) {
	f.disk.mu.Lock()
	switch {
	case f.closed:
		err = pathError(op, f.name, fs.ErrClosed)
	case write && !f.writable:
		err = pathError(op, f.name, fs.ErrPermission)
	}
	return f.disk.mu.Unlock, err
}
