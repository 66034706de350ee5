package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment/vfs"
)

// CheckBlob reads the whole of a blob file, with system calls and a piece at a
// time, and returns all damage to it. passed is told of every piece of n bytes;
// its error ends the check. A file that is missing is an error.
func CheckBlob(fsys vfs.FS, x BlobExtent, store StoreID, passed func(n int64) error) ([]*CorruptError, error) {
	name := x.Blob.BlobName()
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c := blobCheck{file: file, path: filepath.Join(fsys.Path(), name), extent: x, passed: passed}
	if _, err := checkHeader(file, c.path, MagicBlob, x.Blob, store); err != nil {
		return c.found(err)
	}
	table, err := c.table()
	if err != nil {
		return c.found(err)
	}
	return c.chunks(table)
}

type blobCheck struct {
	file   vfs.File
	path   string
	extent BlobExtent
	passed func(n int64) error
}

// found tells damage from other errors.
func (c *blobCheck) found(err error) ([]*CorruptError, error) {
	if damage, ok := errors.AsType[*CorruptError](err); ok {
		return []*CorruptError{damage}, nil
	}
	return nil, err
}

func (c *blobCheck) table() (ChunkTable, error) {
	size, err := c.file.Size()
	if err != nil {
		return nil, err
	}
	at := roundUp(blobValueOffset+int64(c.extent.Length), alignment)
	n := chunkTableSize(c.extent.Length, blobChunkLog)
	if c.extent.Offset != blobValueOffset || size < at+n {
		return nil, &CorruptError{c.path, size, fmt.Sprintf("file ends here, %d bytes are expected", at+n)}
	}
	t := make(ChunkTable, n)
	if _, err := c.file.ReadAt(t, at); err != nil && err != io.EOF {
		return nil, &CorruptError{c.path, at, err.Error()}
	}
	if t.Sum() != c.extent.Sum || binary.LittleEndian.Uint64(t) != blobChunkLog {
		return nil, &CorruptError{c.path, at, errTableSum.Error()}
	}
	return t, nil
}

func (c *blobCheck) chunks(t ChunkTable) (damage []*CorruptError, err error) {
	left := int64(c.extent.Length)
	buf := make([]byte, min(left, t.ChunkSize()))
	for i, off := 0, int64(blobValueOffset); left > 0; i++ {
		chunk := buf[:min(left, int64(len(buf)))]
		_, err := c.file.ReadAt(chunk, off)
		switch {
		case err != nil && err != io.EOF:
			damage = append(damage, &CorruptError{c.path, off, err.Error()})
		case xxhash.Sum64(chunk) != binary.LittleEndian.Uint64(t[8+8*i:]):
			damage = append(damage, &CorruptError{c.path, off, fmt.Sprintf("checksum of chunk %d", i)})
		}
		off, left = off+int64(len(chunk)), left-int64(len(chunk))
		if err := c.passed(int64(len(chunk))); err != nil {
			return damage, err
		}
	}
	return damage, nil
}
