package server

import (
	"context"
	"log/slog"
	"time"
)

// Ways in which a body leaves. A copy has its reason behind it: copied:tls.
const (
	wayMapped   = "mapped"
	waySendfile = "sendfile"
	wayMade     = "made" // text made for this response
)

var wayCopied = [copyReasons]string{
	byWrapped: "copied:wrapped", byHTTP2: "copied:http2", byTLS: "copied:tls", byBuffer: "copied:buffered",
}

// departure is what has left of a body.
type departure struct {
	bytes   int64
	way     string // of the last of them
	aborted bool   // there should have been more
}

// add notes some bytes that have left.
func (d *departure) add(n int64, way string) {
	if n > 0 {
		d.bytes += n
		d.way = way
	}
}

// made is the departure of a text.
func made(n int) departure { return departure{bytes: int64(n), way: wayMade} }

// logAccess tells the access log, of which there must be one, about an answer.
func (h *Handler) logAccess(method, path, remote string, status int, body departure, took time.Duration) {
	attrs := [...]slog.Attr{
		slog.String("method", method), slog.String("path", path), slog.Int("status", status),
		slog.Int64("bytes", body.bytes), slog.Duration("duration", took), slog.String("remote", remote),
		slog.String("sent", body.way), slog.Bool("aborted", body.aborted),
	}
	h.access.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs[:]...)
}

// noteAccess tells it about a request of net/http.
func (x *exchange) noteAccess(took time.Duration) {
	path := x.r.URL.EscapedPath()
	if key, kind := splitPath(x.r.URL); kind == keyPath {
		path = pathOf([]byte(key)) // however it was written
	}
	x.logAccess(x.r.Method, path, x.r.RemoteAddr, x.status, x.departed, took)
}

// noteAccess tells it about a request of the fast path.
func (c *fastConn) noteAccess(took time.Duration) {
	c.handler.logAccess(c.head.method, pathOf(c.head.key), c.RemoteAddr().String(), c.answer.status, c.departed, took)
}
