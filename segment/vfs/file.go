package vfs

import "os"

// file is a real file as a [File]. Its platform half lies in file_linux.go and
// file_other.go.
type file struct {
	os   *os.File
	name string
}

var _ File = (*file)(nil)

func (f *file) Name() string { return f.name }

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.os.ReadAt(p, off) }

func (f *file) Sync() error { return f.os.Sync() }

func (f *file) Size() (int64, error) {
	info, err := f.os.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *file) Map(size int64) (*Mapping, error) { return mapFile(f.os, size) }

func (f *file) OS() *os.File { return f.os }

func (f *file) Close() error { return f.os.Close() }
