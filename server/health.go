package server

import (
	"errors"
	"net/http"

	"github.com/crowfly/crowfly/db"
)

const plainText = "text/plain; charset=utf-8"

// healthy answers GET /-/healthz: there is somebody who answers.
func (x *exchange) healthy() { x.tell(http.StatusOK, "ok") }

// ready answers GET /-/readyz: whether requests should come here. It looks at
// the store and writes nothing to it.
func (x *exchange) ready() {
	if reason := x.unready(); reason != "" {
		x.tell(http.StatusServiceUnavailable, reason)
		return
	}
	x.tell(http.StatusOK, "ready")
}

// unready tells clients why they should ask elsewhere, or "". The log gets what
// is the matter with the store, which may name files, whenever that changes.
func (h *Handler) unready() string {
	if h.alive.Err() != nil {
		return "the server is shutting down"
	}
	err := h.store.Health()
	switch {
	case err == nil:
		h.sick.Store(nil)
		return ""
	case errors.Is(err, db.ErrClosed):
		return db.ErrClosed.Error()
	}
	reason := err.Error()
	if known := h.sick.Swap(&reason); known == nil || *known != reason {
		h.log.Error("not ready", "err", err)
	}
	return "the last write failed, or the store has to be opened again: the log says why; reads go on"
}

// tell answers with a line for people and for whoever looks at the status only.
func (x *exchange) tell(status int, line string) {
	x.w.Header().Set("Cache-Control", "no-store")
	x.reply(status, plainText, []byte(line+"\n"))
}
