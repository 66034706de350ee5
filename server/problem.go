package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/crowfly/crowfly/db"
)

// problem answers with an error in the form of RFC 9457.
func (x *exchange) problem(status int, detail string) {
	text, err := json.Marshal(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{http.StatusText(status), status, detail})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	x.reply(status, "application/problem+json", append(text, '\n'))
}

// reply answers with text made for this response.
func (x *exchange) reply(status int, contentType string, text []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.writeHeader(status)
	if x.r.Method != http.MethodHead {
		// The client may be gone; then there is nobody to tell.
		_, _ = x.w.Write(text)
	}
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
func (x *exchange) fail(err error) { x.problem(x.explain(err)) }

// explain says what an error of the store means to a client, and tells the log
// of one that the operator should know of.
func (x *exchange) explain(err error) (status int, detail string) {
	for _, f := range failures {
		if errors.Is(err, f.err) {
			if f.log {
				x.log.Error("request failed", "method", x.r.Method, "err", err)
			}
			return f.status, f.detail
		}
	}
	x.log.Error("request failed", "method", x.r.Method, "err", err)
	if damage := (*db.CorruptError)(nil); errors.As(err, &damage) {
		return http.StatusInternalServerError, "the stored value is damaged"
	}
	return http.StatusInternalServerError, "the store failed"
}
