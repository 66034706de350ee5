package segment

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/crowfly/crowfly/segment/vfs"
)

// BlobWriter writes a blob. The file has a temporary name until Publish, so
// that a writer that stops half-way leaves nothing that counts. It belongs to
// one goroutine and ends with Finish and Publish, or with Abort.
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

// Finish makes the contents durable.
func (w *BlobWriter) Finish() (BlobExtent, error) {
	table := w.sums.finish()
	tail := append(appendZeros(nil, w.end, roundUp(w.end, alignment)), table...)
	if err := WriteAll(w.file, [][]byte{tail}, w.end); err != nil {
		return BlobExtent{}, fmt.Errorf("write %s at offset %d: %w", w.path, w.end, err)
	}
	if err := WriteAll(w.file, [][]byte{AppendHeader(nil, w.header)}, 0); err != nil {
		return BlobExtent{}, fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := errors.Join(w.file.Trim(), w.file.Datasync()); err != nil { // sabotage: sync-blob
		return BlobExtent{}, fmt.Errorf("sync %s: %w", w.path, err)
	}
	return BlobExtent{Blob: ID(w.header.File), Offset: blobValueOffset, Length: uint64(w.end - blobValueOffset), Sum: table.Sum()}, nil
}

// Publish gives the finished blob its name and makes that durable. The blob
// counts only once a record names it.
func (w *BlobWriter) Publish() error {
	if err := w.fs.Rename(w.file.Name(), ID(w.header.File).BlobName()); err != nil {
		return err
	}
	w.done = true
	return errors.Join(w.fs.SyncDir(), w.file.Close()) // sabotage: name-blob
}

// Abort removes what was written. After Publish it does nothing.
func (w *BlobWriter) Abort() {
	if w.done {
		return
	}
	w.fs.Remove(w.file.Name()) // the next Open removes what stays behind
	w.file.Close()
}
