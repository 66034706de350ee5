package vfs

import (
	"io/fs"
	"os"
	"sync/atomic"
)

// file is a real file as a [File]. Its platform half lies in file_linux.go and
// file_other.go.
type file struct {
	handle *handle
	dir    *Dir
	name   string
	path   string
}

// handle is the operating system's file, nil once dropped.
type handle struct {
	atomic.Pointer[os.File]
	lent atomic.Bool // others than this package have had it
	dir  *Dir
}

var _ File = (*file)(nil)

func newFile(f *os.File, d *Dir, name string) *file {
	n := &file{handle: &handle{dir: d}, dir: d, name: name, path: d.join(name)}
	n.handle.Store(f)
	d.files.Add(1)
	Own(n, release, n.handle)
	return n
}

// release closes what a [File] that nothing uses any more has left open.
func release(h *handle) {
	bury(h)
	h.dir.files.Add(-1)
}

func (f *file) Name() string { return f.name }

// use returns the operating system's file, which stays open as long as the
// caller holds it.
func (f *file) use(op string) (*os.File, error) {
	if h := f.handle.Load(); h != nil {
		return h, nil
	}
	return nil, &os.PathError{Op: op, Path: f.path, Err: fs.ErrClosed}
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	h, err := f.use("read")
	if err != nil {
		return 0, err
	}
	return h.ReadAt(p, off)
}

func (f *file) Sync() error {
	h, err := f.use("sync")
	if err != nil {
		return err
	}
	return h.Sync()
}

func (f *file) Size() (int64, error) {
	h, err := f.use("stat")
	if err != nil {
		return 0, err
	}
	info, err := h.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *file) Map(size int64) (*Mapping, error) {
	h, err := f.use("mmap")
	if err != nil {
		return nil, err
	}
	var m *Mapping
	err = AfterCollection(f.dir.Collect, func() (err error) {
		m, err = mapFile(h, size, &f.dir.files)
		return err
	})
	return m, err
}

func (f *file) OS() *os.File {
	if !f.handle.lent.Load() {
		f.handle.lent.Store(true)
	}
	return f.handle.Load()
}

func (f *file) Drop() { f.handle.Store(nil) }

func (f *file) Close() error {
	h, err := f.use("close")
	if err != nil {
		return err
	}
	return h.Close()
}
