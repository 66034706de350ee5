package db

import (
	"context"
	"fmt"
	"io"

	"github.com/crowfly/crowfly/segment"
)

const (
	pieceSize  = 1 << 20 // bytes of a large value that are held in memory at a time
	firstPiece = 1 << 16 // of a value whose size is unknown and may be small
)

// PutReader stores a value that it reads from r, of size bytes, or of a size
// that r's end will tell if size is -1. It does what Put does, for values of
// up to 1 TiB, in constant memory: from 16 MiB on a value goes straight to a
// file of its own. Nothing of it is seen, or stays behind, if r fails, the
// context ends, or r does not have the size it was said to have (ErrSize).
func (db *DB) PutReader(ctx context.Context, key []byte, r io.Reader, size int64, o *PutOptions) (Result, error) {
	o = o.orDefault()
	if err := o.check(); err != nil {
		return Result{}, withKey("put", key, err)
	}
	result, err := db.putReader(key, &source{ctx: ctx, r: r, size: size}, o)
	return result, withKey("put", key, err)
}

func (db *DB) putReader(key []byte, src *source, o *PutOptions) (Result, error) {
	if db.opts.ReadOnly {
		return Result{}, ErrReadOnly
	}
	if err := checkKey(key); err != nil {
		return Result{}, err
	}
	if src.size < -1 {
		return Result{}, invalid{fmt.Errorf("a size of %d bytes; -1 says that it is unknown", src.size)}
	}
	if src.size > MaxValue {
		return Result{}, tooLarge(src.size, MaxValue)
	}
	head, whole, err := src.readHead(db.opts.BlobSize)
	if err != nil {
		return Result{}, err
	}
	if whole {
		return db.putOne(newPutOf(key, head, src.read, o.Metadata), o)
	}
	return db.putBlob(key, head, src, o)
}

// BlobSize is the size from which PutReader, told the size, writes a value to a
// file as it comes, see [Options]. Any other is in memory up to that size.
func (db *DB) BlobSize() int64 { return db.opts.BlobSize }

// putOne commits a single put.
func (db *DB) putOne(put op, o *PutOptions) (Result, error) {
	c := &commit{ops: []op{put}}
	if put.invalid == nil {
		c.conditions = o.conditions(put.record.Key)
	}
	err := db.commit(c, o.Sync)
	return c.ops[0].result, err
}

// putBlob writes the value to a file, makes that durable, and then commits the
// record that names it. Until the record is there the file is nothing: a crash
// leaves one that no record names, and the next Open removes it.
func (db *DB) putBlob(key []byte, head [][]byte, src *source, o *PutOptions) (Result, error) {
	put := newPut(key, nil, o.Metadata) // complains before anything is written
	if put.invalid != nil {
		return Result{}, put.invalid
	}
	// Spare a large value the way to the disk if the conditions don't hold
	// now. If they do they are judged again when it is committed.
	if err := db.commit(&commit{conditions: o.conditions(key)}, o.Sync); err != nil {
		return Result{}, err
	}
	extent, err := db.writeBlob(head, src)
	if err != nil {
		if src.failed == nil {
			db.lastWrite.fail(err, db.fs.Now())
		}
		return Result{}, writeError(err)
	}
	put.record = segment.NewBlobRef(key, put.record.Meta, []segment.BlobExtent{extent})
	c := &commit{ops: []op{put}, conditions: o.conditions(key)}
	err = db.commit(c, o.Sync)
	if err != nil && !c.written {
		db.whileOpen(func() { db.fs.Remove(extent.Blob.BlobName()) })
	}
	return c.ops[0].result, err
}

// writeBlob writes the value to a file that is durable and has its name on return.
func (db *DB) writeBlob(head [][]byte, src *source) (segment.BlobExtent, error) {
	w, err := db.createBlob()
	if err != nil {
		return segment.BlobExtent{}, err
	}
	defer db.whileOpen(w.Abort)
	if err := src.copyTo(w, head, db.mayPut); err != nil {
		return segment.BlobExtent{}, err
	}
	extent, err := w.Finish()
	if err == nil {
		err = db.publishBlob(w)
	}
	return extent, err
}

// createBlob begins a blob with a number of its own.
func (db *DB) createBlob() (*segment.BlobWriter, error) {
	db.write.Lock()
	defer db.write.Unlock()
	if err := db.writable(); err != nil {
		return nil, err
	}
	if err := db.pinnedError(); err != nil {
		return nil, err
	}
	if err := db.establish(); err != nil {
		return nil, err
	}
	return segment.CreateBlob(db.fs, db.manifests.TakeID(), db.manifests.Current().Store, db.manifests.Epoch())
}

// publishBlob gives a finished blob its name.
func (db *DB) publishBlob(w *segment.BlobWriter) error {
	db.write.Lock()
	defer db.write.Unlock()
	if err := db.writable(); err != nil {
		return err
	}
	err := w.Publish()
	if err != nil {
		db.writer.poison = err // what else that sync of the directory was to make durable is unknown
	}
	return err
}

// whileOpen does something to the names of files, unless the store was closed
// meanwhile: then they may be those of another run, and the next Open has put
// them in order.
func (db *DB) whileOpen(do func()) {
	db.write.Lock()
	defer db.write.Unlock()
	if !db.closed() {
		do()
	}
}

// source is what PutReader reads from.
type source struct {
	ctx  context.Context
	r    io.Reader
	size int64 // -1 if unknown
	read int64

	failed error // what is wrong with the source, as opposed to the store
}

// readHead reads a value below most bytes, and then whole is true, or else the
// beginning of it, in pieces: memory is taken as the bytes come, and not for what
// somebody has said the size is.
func (s *source) readHead(most int64) (head [][]byte, whole bool, err error) {
	if s.size >= most {
		return nil, false, nil
	}
	for s.read < most {
		piece := make([]byte, s.nextPiece())
		n, err := s.fill(piece)
		head = append(head, piece[:n])
		if err == io.EOF {
			return head, s.read < most, s.checkSize()
		}
		if err != nil {
			return nil, false, err
		}
	}
	return head, false, nil
}

// nextPiece is how much of a value to read next. There is a boundary at each MiB, and
// until something comes from behind it little memory is taken for that.
func (s *source) nextPiece() int64 {
	switch behind := s.read % pieceSize; {
	case s.size >= 0 && s.size < pieceSize:
		return s.size + 1 // one more tells whether it ends there
	case s.read < pieceSize:
		return max(firstPiece, s.read)
	case behind == 0:
		return firstPiece
	default:
		return pieceSize - behind
	}
}

// copyTo writes the head and all that follows, as far as may lets it.
func (s *source) copyTo(w *segment.BlobWriter, head [][]byte, may func(int64) error) error {
	if err := may(max(s.size, s.read)); err != nil {
		return err
	}
	if s.size > 0 {
		if err := w.Reserve(s.size); err != nil {
			return err
		}
	}
	for i, piece := range head {
		if _, err := w.Write(piece); err != nil {
			return err
		}
		head[i] = nil
	}
	piece := make([]byte, pieceSize)
	for {
		n, readErr := s.fill(piece)
		if s.size < 0 {
			if err := may(int64(n)); err != nil {
				return err
			}
		}
		if _, err := w.Write(piece[:n]); err != nil {
			return err
		}
		if readErr == io.EOF {
			return s.checkSize()
		}
		if readErr != nil {
			return readErr
		}
	}
}

// fill reads until the piece is full. It returns io.EOF at the end of the
// value, with the last bytes.
func (s *source) fill(piece []byte) (n int, err error) {
	defer func() {
		if err != io.EOF {
			s.failed = err
		}
	}()
	const most = 100 // reads in a row that bring nothing
	for empty := 0; n < len(piece) && err == nil; {
		if err = s.ctx.Err(); err != nil {
			return n, err
		}
		var m int
		m, err = s.r.Read(piece[n:])
		n += m
		if empty++; m > 0 {
			empty = 0
		}
		if empty == most && err == nil {
			err = io.ErrNoProgress
		}
	}
	s.read += int64(n)
	if s.read > MaxValue {
		return n, tooLarge(-1, MaxValue)
	}
	if s.size >= 0 && s.read > s.size {
		return n, s.tooLong()
	}
	return n, err
}

func (s *source) checkSize() error {
	if s.size >= 0 && s.read != s.size {
		s.failed = fmt.Errorf("%w: %d bytes, not %d", ErrSize, s.read, s.size)
	}
	return s.failed
}

func (s *source) tooLong() error {
	return fmt.Errorf("%w: more than %d bytes", ErrSize, s.size)
}
