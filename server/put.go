package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/crowfly/crowfly/db"
)

// put answers PUT of a key. Nothing is stored unless the whole body has come.
func (x *exchange) put() {
	m, ok := x.requestMetadata()
	if !ok {
		return
	}
	value, ok := x.requestBody()
	if !ok || !x.mayWrite() {
		return
	}
	var b db.Batch
	b.Put(x.key, value, &m)
	if err := x.store.Apply(&b, nil); err != nil {
		x.fail(err)
		return
	}
	result := b.Result(0)
	x.w.Header().Set("ETag", etagOf(result.Version))
	if result.Existed {
		x.writeHeader(http.StatusNoContent)
		return
	}
	x.w.Header().Set("Content-Length", "0")
	x.writeHeader(http.StatusCreated)
}

// delete answers DELETE of a key.
func (x *exchange) delete() {
	if !x.mayWrite() {
		return
	}
	if err := x.store.Delete(x.key, nil); err != nil {
		x.fail(err)
		return
	}
	x.writeHeader(http.StatusNoContent)
}

// mayWrite holds the conditions of a PUT or DELETE against the present value,
// and answers if they don't hold. The value can still change between this and
// the write.
func (x *exchange) mayWrite() bool {
	if !conditional(x.r.Header) {
		return true
	}
	current, err := x.present()
	absent := errors.Is(err, db.ErrNotFound)
	if err != nil && (!absent || x.r.Method == http.MethodDelete) {
		x.fail(err) // conditions only matter where there would be success
		return false
	}
	if current.evaluate(x.r) != proceed {
		x.problem(http.StatusPreconditionFailed, "the present value is not as the request demands")
		return false
	}
	return true
}

// present returns the validators of the present value, the zero ones with
// db.ErrNotFound if there is none.
func (x *exchange) present() (validators, error) {
	v, err := x.store.Value(x.key)
	if err != nil {
		return validators{}, err
	}
	defer v.Close()
	m, err := v.Metadata()
	return validatorsOf(v, &m), err
}

// conditional reports whether a write has conditions.
func conditional(h http.Header) bool {
	return len(h["If-Match"])+len(h["If-None-Match"])+len(h["If-Unmodified-Since"]) > 0
}

// maxStoredHeaders is well below what the metadata of a record can hold.
const maxStoredHeaders = 32 << 10

// requestMetadata takes what a PUT says about its value from the header.
func (x *exchange) requestMetadata() (m db.Metadata, ok bool) {
	h := x.r.Header
	if len(h["Content-Range"]) > 0 {
		x.problem(http.StatusBadRequest, "a part of a value can't be written: Content-Range is for responses")
		return m, false
	}
	m = db.Metadata{
		ModTime:            time.Now(),
		ContentType:        h.Get("Content-Type"),
		CacheControl:       h.Get("Cache-Control"),
		ContentEncoding:    h.Get("Content-Encoding"),
		ContentDisposition: h.Get("Content-Disposition"),
	}
	total := 0
	for _, value := range []string{m.ContentType, m.CacheControl, m.ContentEncoding, m.ContentDisposition} {
		total += len(value)
		if !visible(value) {
			x.problem(http.StatusBadRequest, "a header that is stored with the value has bytes other than visible ASCII")
			return m, false
		}
	}
	if total > maxStoredHeaders {
		x.problem(http.StatusRequestHeaderFieldsTooLarge, "the headers that are stored with the value are too long")
		return m, false
	}
	return m, true
}

// requestBody reads the body of a PUT, or answers why not. A body that is
// refused unread closes the connection: to skip it would be to receive it.
func (x *exchange) requestBody() (value []byte, ok bool) {
	if x.r.ContentLength > x.maxBody {
		x.tooLarge()
		return nil, false
	}
	if x.r.ContentLength == 0 && x.r.ProtoMajor == 1 && x.r.Header.Get("Content-Length") == "" {
		x.problem(http.StatusLengthRequired, "say Content-Length: 0 to store an empty value")
		return nil, false
	}
	value, err := x.readBody()
	if err == nil {
		return value, true
	}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		x.tooLarge()
		return nil, false
	}
	x.w.Header().Set("Connection", "close")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.problem(http.StatusRequestTimeout, "the body came too slowly")
		return nil, false
	}
	x.problem(http.StatusBadRequest, "the body ended early")
	return nil, false
}

func (x *exchange) tooLarge() {
	x.w.Header().Set("Connection", "close")
	x.problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the limit is %d bytes", x.maxBody))
}

// uploadPiece is how much of a body must come in the time for one piece, and
// how much memory a client gets for the mere announcement of a body.
const uploadPiece = 1 << 20

// readBody reads piece by piece, so that a client that stops is noticed.
func (x *exchange) readBody() ([]byte, error) {
	// Where there are no deadlines (a recorder in a test) it goes without.
	defer func() { _ = x.rc.SetReadDeadline(time.Time{}) }()

	source := http.MaxBytesReader(x.w, x.r.Body, x.maxBody)
	var buf bytes.Buffer
	if x.r.ContentLength >= 0 {
		buf.Grow(int(min(x.r.ContentLength, uploadPiece)) + bytes.MinRead)
	}
	for {
		_ = x.rc.SetReadDeadline(x.pace.deadline(uploadPiece))
		n, err := io.CopyN(&buf, source, uploadPiece)
		if errors.Is(err, io.EOF) {
			return buf.Bytes(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("body after %d bytes: %w", buf.Len(), err)
		}
		if rest := x.r.ContentLength - int64(buf.Len()); rest > 0 && n == int64(buf.Len()) {
			buf.Grow(int(rest) + bytes.MinRead) // the first piece has come, so the rest may
		}
	}
}
