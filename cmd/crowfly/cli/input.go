package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"time"

	"github.com/crowfly/crowfly/db"
)

// input is what a value is read from.
type input struct {
	io.Reader
	size    int64     // -1 if unknown
	modTime time.Time // that of a file if the store can hold it, else the nearest one
}

// newInput looks at what r is. Of a regular file the value is the rest, as
// long as it is now: one that grows meanwhile does no harm, one that shrinks is
// an error when it is read.
func newInput(ctx context.Context, r io.Reader) (*input, error) {
	f, ok := r.(*os.File)
	if !ok {
		return endless(ctx, r), nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return endless(ctx, r), nil
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	size := info.Size() - at
	if size <= 0 { // files of /proc have contents but no size
		return &input{f, -1, db.ClampTime(info.ModTime())}, nil
	}
	return &input{io.LimitReader(f, size), size, db.ClampTime(info.ModTime())}, nil
}

// endless is an input that tells nothing about itself, such as a pipe.
func endless(ctx context.Context, r io.Reader) *input {
	return &input{&impatient{ctx, r}, -1, time.Now()}
}

// readAhead reads the first n bytes of an input of unknown size. If it ends
// before, the size is known.
func (in *input) readAhead(n int64) error {
	if in.size >= 0 {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(in.Reader, n))
	if err != nil {
		return err
	}
	if int64(len(head)) < n {
		in.Reader, in.size = bytes.NewReader(head), int64(len(head))
		return nil
	}
	in.Reader = io.MultiReader(bytes.NewReader(head), in.Reader)
	return nil
}

// readAll returns the whole value, whose size is known.
func (in *input) readAll() ([]byte, error) {
	value := make([]byte, in.size)
	_, err := io.ReadFull(in, value)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = db.ErrSize
	}
	return value, err
}

// impatient fills the slice it is given, but stops waiting for that when its
// context ends. The read that it left behind may still write to the slice.
type impatient struct {
	ctx context.Context
	r   io.Reader
}

func (i *impatient) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		for r.n < len(p) && r.err == nil { // pipes give little at a time
			var n int
			n, r.err = i.r.Read(p[r.n:])
			r.n += n
		}
		done <- r
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

// tap tells how many bytes are read through it, and remembers why it failed.
type tap struct {
	r      io.Reader
	passed func(n int64)
	read   int64
	err    error // but io.EOF
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.read += int64(n)
	t.passed(int64(n))
	if err != io.EOF {
		t.err = err
	}
	return n, err
}
