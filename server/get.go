package server

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strconv"
	"syscall"

	"github.com/crowfly/crowfly/db"
)

// get answers GET and HEAD of a key.
func (x *exchange) get() {
	defer guard()()
	v, err := x.store.Value(x.key)
	if err != nil {
		x.fail(err)
		return
	}
	defer v.Close() // after the last byte: the response is a slice of the value
	m, err := v.Metadata()
	if err != nil {
		x.fail(err)
		return
	}

	switch current := validatorsOf(v, &m); current.evaluate(x.r) {
	case refused:
		x.problem(http.StatusPreconditionFailed, "the value is not the one the request is about")
	case notModified:
		x.setValidators(current, &m)
		x.writeHeader(http.StatusNotModified)
	default:
		x.getValue(v, &m, current)
	}
}

// getValue answers with the value or a part of it.
func (x *exchange) getValue(v *db.Value, m *db.Metadata, current validators) {
	part, kind := span{0, v.Size()}, wholeValue
	if x.r.Method == http.MethodGet && current.rangeApplies(x.r) { // of HEAD there are no ranges
		part, kind = parseRange(x.r.Header["Range"], v.Size())
	}
	if kind == unsatisfiable {
		x.w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(v.Size(), 10))
		x.problem(http.StatusRequestedRangeNotSatisfiable, "the value ends before the range begins")
		return
	}

	var b *body
	if x.r.Method == http.MethodGet && part.n > 0 {
		// Here the first bytes are verified. After the header it would be
		// too late to answer with an error.
		var err error
		if b, err = newBody(x, v, part); err != nil {
			x.fail(err)
			return
		}
	}
	x.setValidators(current, m)
	x.setDescription(m)
	x.w.Header().Set("Accept-Ranges", "bytes")
	x.w.Header().Set("Content-Length", strconv.FormatInt(part.n, 10))
	status := http.StatusOK
	if kind == partOfValue {
		x.w.Header().Set("Content-Range", part.contentRange(v.Size()))
		status = http.StatusPartialContent
	}
	x.writeHeader(status)
	if b != nil {
		x.send(b)
	}
}

// setValidators sets what a client needs to ask for the value again.
func (x *exchange) setValidators(current validators, m *db.Metadata) {
	x.w.Header().Set("ETag", current.etag)
	if !current.modified.IsZero() {
		x.w.Header().Set("Last-Modified", current.modified.UTC().Format(http.TimeFormat))
	}
	x.setText("Cache-Control", m.CacheControl)
}

// send sends the body by the best way there is. If it can't be sent to the
// end the connection, or the stream of HTTP/2, is cut: that is the only way to
// tell the client.
func (x *exchange) send(b *body) {
	err := x.transfer(b)
	if err == nil {
		return
	}
	if c := connOf(x.r); c != nil {
		// Else the kernel would go on for minutes to deliver what is in its
		// buffers, to a client that may not even read.
		_ = c.SetLinger(0)
	}
	x.stats.aborted.Add(1)
	if ownFault(err) {
		x.log.Error("response cut off", "method", x.r.Method, "err", err)
	}
	panic(http.ErrAbortHandler)
}

// transfer chooses the way.
func (x *exchange) transfer(b *body) error {
	sink, direct := x.w.(io.ReaderFrom)
	switch {
	case x.r.ProtoMajor >= 2:
		b.reason = byHTTP2
	case x.r.TLS != nil:
		b.reason = byTLS
	case !direct:
		b.reason = byWrapped
	case connOf(x.r) == nil && !b.large:
		b.reason = byBuffer
	default:
		return x.transferToSocket(b, sink)
	}
	_, err := b.WriteTo(x.w)
	return err
}

// transferToSocket has net/http hand the body over to its connection. For that
// the header must be out of net/http's hands, else it would copy the beginning
// of the body to look at it.
func (x *exchange) transferToSocket(b *body, sink io.ReaderFrom) (err error) {
	if c := connOf(x.r); c != nil {
		c.hold()
		defer func() { err = cmp.Or(err, c.release()) }()
	}
	// A ResponseWriter that can't flush gets a copy of the beginning.
	if err := x.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err = sink.ReadFrom(b)
	return err
}

// ownFault reports whether a transfer failed on this side: the file is shorter
// than it was, or the disk can't read it. Everything else is a client that
// went away.
func ownFault(err error) bool {
	var damage *db.CorruptError
	return errors.As(err, &damage) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EFAULT)
}
