package db

import (
	"sync/atomic"

	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

func newDisk() *simdisk.Disk { return simdisk.New() }

// countingFS counts what a real directory is asked to sync.
type countingFS struct {
	vfs.FS
	datasyncs atomic.Int64
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (c *countingFS) Create(name string) (vfs.File, error) {
	f, err := c.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return countingFile{f, c}, nil
}

func (f countingFile) Datasync() error {
	f.fs.datasyncs.Add(1)
	return f.File.Datasync()
}
