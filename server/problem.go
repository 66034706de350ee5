package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/crowfly/crowfly/db"
)

const (
	problemType = "application/problem+json"
	noSniff     = "X-Content-Type-Options"
)

// refusal is what a client is told instead of what it asked for.
type refusal struct {
	status int
	detail string
}

// text is the body of the response, in the form of RFC 9457.
func (r refusal) text() []byte {
	text, err := json.Marshal(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{http.StatusText(r.status), r.status, r.detail})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return append(text, '\n')
}

// problem answers with an error.
func (x *exchange) problem(status int, detail string) {
	x.reply(status, problemType, refusal{status, detail}.text())
}

// turnAway answers a request that admit has refused.
func (x *exchange) turnAway(r refusal) {
	if r.status == http.StatusUnauthorized {
		x.w.Header().Set("WWW-Authenticate", "Bearer")
	}
	x.problem(r.status, r.detail)
}

// reply answers with text made for this response.
func (x *exchange) reply(status int, contentType string, text []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.writeHeader(status)
	if x.r.Method != http.MethodHead {
		x.write(text)
	}
}

// write writes text made for this response. The client may be gone; then there
// is nobody to tell.
func (x *exchange) write(text []byte) {
	n, _ := x.w.Write(text)
	x.departed = made(n)
}

// failures tells what the errors of the store mean to a client. The text is
// all that the client gets: the error itself may name files. Keys and values
// that are too long don't get as far as the store. A body that does not have
// its length comes from something between net/http and the handler.
var failures = []struct {
	err    error
	status int
	detail string
	log    bool // the operator has something to do
}{
	{db.ErrNotFound, http.StatusNotFound, "no value under this key", false},
	{db.ErrPrecondition, http.StatusPreconditionFailed, "the present value is not as the request demands", false},
	{db.ErrSize, http.StatusBadRequest, "the body is not as long as Content-Length says", false},
	{db.ErrReadOnly, http.StatusForbidden, "the store is open for reading only", false},
	{context.Canceled, http.StatusServiceUnavailable, "the server is shutting down", false},
	{db.ErrClosed, http.StatusServiceUnavailable, "the store is closed", false},
	{db.ErrSnapshotExpired, http.StatusServiceUnavailable, "the store has changed too much meanwhile", false},
	{db.ErrPinnedSpace, http.StatusServiceUnavailable, "readers hold too many old segments", true},
	{db.ErrNoSpace, http.StatusInsufficientStorage, "no space left for writing", true},
}

// fail answers with what an error of the store means to a client.
func (x *exchange) fail(err error) {
	r := x.failure(x.r.Method, err)
	x.problem(r.status, r.detail)
}

// failure is what an error of the store means to a client. The log learns what
// is for the operator.
func (h *Handler) failure(method string, err error) refusal {
	for _, f := range failures {
		if errors.Is(err, f.err) {
			if f.log {
				h.log.Error("request failed", "method", method, "err", err)
			}
			return refusal{f.status, f.detail}
		}
	}
	h.log.Error("request failed", "method", method, "err", err)
	detail := "the store failed"
	if damage := (*db.CorruptError)(nil); errors.As(err, &damage) {
		detail = "the stored value is damaged"
	}
	return refusal{http.StatusInternalServerError, detail}
}
