package segment

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/crowfly/crowfly/segment/vfs"
)

// BlobWriter writes a blob. The file has a temporary name until Commit, so
// that a writer that stops half-way leaves nothing that counts. It belongs to
// one goroutine and ends with Commit or Abort.
type BlobWriter struct {
	fs     vfs.FS
	file   vfs.File
	path   string
	header Header
	sums   *chunkSummer
	end    int64 // of the value so far, in the file
	done   bool  // committed
}

// CreateBlob makes the temporary file of a blob.
func CreateBlob(fsys vfs.FS, id ID, store StoreID, epoch uint32) (*BlobWriter, error) {
	file, err := fsys.Create(TempName(id.BlobName()))
	if err != nil {
		return nil, err
	}
	return &BlobWriter{
		fs:     fsys,
		file:   file,
		path:   filepath.Join(fsys.Path(), file.Name()),
		header: Header{Magic: MagicBlob, Store: store, File: uint64(id), Salt: RandomSalt(), Epoch: epoch},
		sums:   newChunkSummer(blobChunkLog),
		end:    blobValueOffset,
	}, nil
}

// Reserve sets disk blocks aside for a value of n bytes.
func (w *BlobWriter) Reserve(n int64) error {
	if err := w.file.Reserve(0, blobValueOffset+n+chunkTableSize(uint64(n), blobChunkLog)+alignment); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", n, w.path, err)
	}
	return nil
}

// Write implements [io.Writer] with the next bytes of the value.
func (w *BlobWriter) Write(p []byte) (int, error) {
	if err := WriteAll(w.file, [][]byte{p}, w.end); err != nil {
		return 0, fmt.Errorf("write %s at offset %d: %w", w.path, w.end, err)
	}
	w.sums.add(p)
	w.end += int64(len(p))
	return len(p), nil
}

// Commit makes the blob durable, gives it its name and makes that durable too.
// It counts only once a record names it.
func (w *BlobWriter) Commit() (BlobExtent, error) {
	table := w.sums.finish()
	tail := append(appendZeros(nil, w.end, roundUp(w.end, alignment)), table...)
	if err := WriteAll(w.file, [][]byte{tail}, w.end); err != nil {
		return BlobExtent{}, fmt.Errorf("write %s at offset %d: %w", w.path, w.end, err)
	}
	if err := WriteAll(w.file, [][]byte{AppendHeader(nil, w.header)}, 0); err != nil {
		return BlobExtent{}, fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := errors.Join(w.file.Trim(), w.file.Datasync()); err != nil {
		return BlobExtent{}, fmt.Errorf("sync %s: %w", w.path, err)
	}
	id := ID(w.header.File)
	if err := w.fs.Rename(w.file.Name(), id.BlobName()); err != nil {
		return BlobExtent{}, err
	}
	if err := w.fs.SyncDir(); err != nil {
		return BlobExtent{}, errors.Join(err, w.fs.Remove(id.BlobName()))
	}
	w.file.Close()
	w.done = true
	return BlobExtent{Blob: id, Offset: blobValueOffset, Length: uint64(w.end - blobValueOffset), Sum: table.Sum()}, nil
}

// Abort removes what was written. After Commit has succeeded it does nothing.
func (w *BlobWriter) Abort() {
	if w.done {
		return
	}
	w.fs.Remove(w.file.Name()) // the next Open removes what stays behind
	w.file.Close()
}
