package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/crowfly/crowfly/db"
)

const (
	// uploadPiece is how much of a body must come in the time for one piece,
	// and how much memory a client gets for the mere announcement of a body.
	uploadPiece = 1 << 20

	// maxSkip is how much of a body nobody wants is read to keep the
	// connection.
	maxSkip = 256 << 10
)

// mayUpload answers a PUT whose body is refused unread, whatever it is.
func (x *exchange) mayUpload() bool {
	if x.r.ContentLength > x.maxBody {
		x.tooLarge()
		return false
	}
	if !x.r.ProtoAtLeast(1, 1) && len(x.r.Header["Content-Length"]) == 0 {
		// From HTTP/1.1 on there is no body then. Here there may be one
		// which ends with the connection, and would be lost.
		x.problem(http.StatusLengthRequired, "HTTP/1.0 has to say the length of the value")
		return false
	}
	return true
}

// errBusy says that the memory for bodies is taken.
var errBusy = errors.New("too much is under way")

// upload stores the body of a PUT, or answers why not.
// Digests of it are checked as it comes.
func (x *exchange) upload(o *db.PutOptions, digests []digest) (db.Result, bool) {
	if x.r.ContentLength == 0 { // the body need not be read then
		if err := checkAll(digests); err != nil {
			x.brokenOff(err)
			return db.Result{}, false
		}
	}
	u := &uploadReader{exchange: x, body: http.MaxBytesReader(x.w, x.r.Body, x.maxBody), digests: digests}
	if !u.hold(u.piece(1)) {
		x.busy()
		return db.Result{}, false
	}
	defer u.letGo()
	// The context counts while the body comes, see Read. Later it may end because
	// the client has closed its half of the connection.
	result, err := x.store.PutReader(context.WithoutCancel(x.r.Context()), x.q.key, u, x.r.ContentLength, o)
	switch {
	case err == nil:
		return result, true
	case u.err != nil:
		x.brokenOff(u.err)
	default:
		x.fail(err)
	}
	return result, false
}

// errTrailer says that fields came behind a body, of which nobody may believe that
// they were stored or looked at.
var errTrailer = errors.New("there are fields behind the body: trailers are not taken")

// brokenOff answers a PUT whose body did not come as it should have. There is
// no telling where the next request begins.
func (x *exchange) brokenOff(err error) {
	if other := (*digestError)(nil); errors.As(err, &other) {
		x.problem(http.StatusBadRequest, other.Error()) // all of it has come
		return
	}
	x.hangUp()
	large := (*http.MaxBytesError)(nil)
	switch {
	case errors.As(err, &large):
		x.tooLarge()
	case errors.Is(err, errBusy):
		x.busy()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		if c := connOf(x.r); c != nil {
			c.ending.over.Store(true) // it has had its time
		}
		x.problem(http.StatusRequestTimeout, "the body came too slowly")
	case errors.Is(err, errTrailer):
		x.problem(http.StatusBadRequest, errTrailer.Error())
	default:
		x.problem(http.StatusBadRequest, "the body ended early")
	}
}

// busy asks a client to come again.
func (x *exchange) busy() {
	x.w.Header().Set("Retry-After", "1")
	x.problem(http.StatusServiceUnavailable, "too many bodies are under way")
}

func (x *exchange) tooLarge() {
	x.hangUp()
	x.problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the limit is %d bytes", x.maxBody))
}

// uploadReader reads a body piece by piece, so that a client that stops is
// noticed, and knows whether it was the body that failed.
type uploadReader struct {
	*exchange
	body   io.Reader
	left   int   // of the piece under way
	pieces int   // that have begun
	due    bool  // its memory, when some of it comes
	held   int64 // of the memory for bodies
	err    error // but io.EOF

	digests []digest
	got     int64 // bytes, counted if there are digests
}

// piece is how much memory a piece takes.
func (u *uploadReader) piece(number int) int64 {
	if u.r.ContentLength < 0 {
		return uploadPiece
	}
	return min(u.r.ContentLength-int64(number-1)*uploadPiece, uploadPiece)
}

// hold takes n more bytes of the memory for bodies, if they are there.
func (u *uploadReader) hold(n int64) bool {
	ok := u.inFlight.take(n, u.held)
	if ok {
		u.held += n
	}
	return ok
}

func (u *uploadReader) letGo() {
	u.inFlight.give(u.held)
	u.held = 0
}

// nextPiece gives the next piece its time.
func (u *uploadReader) nextPiece() {
	u.left = uploadPiece
	u.setReadDeadline(u.pace.deadline(uploadPiece))
	u.pieces++
	u.due = u.pieces > 1
}

// holdPiece takes the memory for a piece that is not the first and has begun to
// come, as long as the value is in memory: what has come counts, and little of what
// was announced. One piece is enough for a value that goes to a file. If its length
// is unknown it does so when more has come than is held in memory.
func (u *uploadReader) holdPiece() bool {
	u.due = false
	blob := u.store.BlobSize()
	inFile := int((blob-1)/uploadPiece) + 2
	switch {
	case u.r.ContentLength >= blob || u.pieces > inFile:
		return true
	case u.pieces == inFile:
		u.inFlight.give(u.held - uploadPiece)
		u.held = uploadPiece
		return true
	}
	return u.hold(u.piece(u.pieces))
}

// Read implements [io.Reader].
func (u *uploadReader) Read(p []byte) (int, error) {
	// On a connection of ours the body itself tells what becomes of it. There
	// the context ends when the client has no more to send, which may be while
	// requests that it has sent wait to be answered.
	if err := u.r.Context().Err(); err != nil && u.unread && connOf(u.r) == nil {
		u.err = err
		return 0, err
	}
	if u.left <= 0 {
		u.nextPiece()
	}
	n, err := u.body.Read(p[:min(len(p), u.left)])
	u.left -= n
	if u.due && n > 0 && !u.holdPiece() {
		u.err = errBusy
		return n, errBusy
	}
	switch err {
	case nil:
	case io.EOF:
		u.unread = false
		if len(u.r.Trailer) > 0 {
			u.err, err = errTrailer, errTrailer // and the value is not whole
		}
	default:
		u.err = err
	}
	if len(u.digests) > 0 {
		return u.sum(p[:n], err)
	}
	return n, err
}

// sum adds what Read has got to the digests, and checks them at the end of the
// body. If one differs, the last bytes are kept back: who has all that was
// announced might not look at an error beside them.
func (u *uploadReader) sum(p []byte, err error) (int, error) {
	addTo(u.digests, p)
	u.got += int64(len(p))
	if err == io.EOF || err == nil && u.got == u.r.ContentLength {
		if bad := checkAll(u.digests); bad != nil {
			u.err = bad
			return 0, bad
		}
	}
	return len(p), err
}

// expectBody gives a body its time, whether the request wants it or not. With
// the body net/http ends the deadline.
func (x *exchange) expectBody() {
	if x.r.ContentLength != 0 {
		x.unread = true
		x.setReadDeadline(x.pace.deadline(uploadPiece))
	}
	framed := x.r.ProtoMajor > 1 || connOf(x.r) != nil && x.r.TLS == nil
	if !framed && (x.r.ContentLength < 0 || !x.r.ProtoAtLeast(1, 1)) {
		// It may have had a Content-Length beside Transfer-Encoding, or the
		// latter in HTTP/1.0, and nobody has looked, see framing.
		x.w.Header().Set("Connection", "close")
	}
}

// skipBody gets what is left of a body out of the way of the next request, if
// it is little. Otherwise the connection ends with the response: to skip it
// would be to receive it. So it does if the client waits to be asked for it.
// The deadline stays, since net/http looks for the end of it too.
func (x *exchange) skipBody() {
	if !x.unread {
		return
	}
	if x.r.ContentLength <= maxSkip && x.r.Header.Get("Expect") == "" {
		if _, err := io.CopyN(io.Discard, x.r.Body, maxSkip+1); err == io.EOF {
			x.unread = false
			return
		}
	}
	x.hangUp()
}

// hangUp ends the connection with the response, and the body with it. A stream
// of HTTP/2 ends alone.
func (x *exchange) hangUp() {
	x.unread = false
	if x.r.ProtoMajor == 1 {
		x.w.Header().Set("Connection", "close")
	}
}

// setReadDeadline goes without where there are no deadlines.
func (x *exchange) setReadDeadline(t time.Time) { _ = x.rc.SetReadDeadline(t) }
