//go:build !linux

package vfs

import "os"

const largeFile = 0 // all files may be large

// WriteVec implements [File].
func (f *file) WriteVec(bufs [][]byte, off int64) (n int, err error) {
	h, err := f.use("write")
	if err != nil {
		return 0, err
	}
	for _, b := range bufs {
		k, err := h.WriteAt(b, off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Datasync implements [File]. Package os asks for a full flush of the drive
// where fsync alone would not.
func (f *file) Datasync() error { return f.Sync() }

// bury closes what a [File] that nobody uses any more has left open.
func bury(h *handle) {
	if f := h.Load(); f != nil {
		f.Close()
	}
}

// Writeback implements [File]: there is no portable way.
func (f *file) Writeback(off, n int64) error { return nil }

func copiesOnWrite(*os.File) bool { return false }

func writeInPlace(*os.File) {}

// Reserve implements [File]: there is no portable way.
func (f *file) Reserve(off, n int64) error { return nil }

// Trim implements [File]: nothing was reserved.
func (f *file) Trim() error { return nil }
