package server

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// conn is a connection of a [Server]. It brings the header of a response, which
// net/http writes, and the body, which it doesn't, together again: the handler
// calls hold, lets net/http write the header, which stays here, and then has
// the body copied to the connection, where ReadFrom sends both at once.
//
// Holding belongs to the goroutine that serves the connection.
type conn struct {
	*net.TCPConn
	free    func() // its slot, when it is closed
	time    writeTime
	unread  []byte // by the fast path, from which it came
	framing framing
	holding bool
	held    []byte // a header not yet written; empty unless holding
	ending  ending
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	if c.framing.over() {
		return 0, io.EOF
	}
	n, err := c.read(p)
	c.ending.read(n, err)
	return len(c.framing.follow(p[:n])), err
}

// read reads what the fast path has not.
func (c *conn) read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.TCPConn.Read(p)
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil
	}
	return n, nil
}

// Close implements [net.Conn].
func (c *conn) Close() error { return c.ending.close(c.TCPConn, c.time.pace, c.free) }

// SetLinger is that of a net.TCPConn. What is cut off does not end in stages.
func (c *conn) SetLinger(seconds int) error {
	if seconds == 0 {
		c.ending.over.Store(true)
	}
	return c.TCPConn.SetLinger(seconds)
}

// hold keeps back the next Write until there is something to send with it.
func (c *conn) hold() { c.holding = true }

// take ends hold and returns what was kept back. It is valid until the next
// Write.
func (c *conn) take() []byte {
	header := c.held
	c.held = c.held[:0]
	c.holding = false
	return header
}

// release ends hold and writes what was kept back. Nothing stays behind,
// whatever happened to the body.
func (c *conn) release() error {
	header := c.take()
	if len(header) == 0 {
		return nil
	}
	_, err := c.Write(header)
	return err
}

// SetWriteDeadline implements [net.Conn].
func (c *conn) SetWriteDeadline(t time.Time) error { return c.time.set(c.TCPConn, t) }

// Write implements [net.Conn]. Each gets its own deadline unless there is one
// already, so a client that does not read can't keep anything, however small the
// responses. One that is there is for as much as it was set for: encrypted, a
// piece of a value is hundreds of writes.
func (c *conn) Write(p []byte) (int, error) {
	if c.holding && len(c.held) == 0 {
		c.held = append(c.held, p...) // p is a buffer of net/http
		return len(p), nil
	}
	if header := c.take(); len(header) > 0 {
		if _, err := c.writeNow(header); err != nil {
			return 0, err
		}
	}
	return c.writeNow(p)
}

// writeNow writes. If it fails the connection will be closed, and is to be cut off
// then: else the kernel would go on for minutes to deliver what is in its
// buffers, to a client that may not even read.
func (c *conn) writeNow(p []byte) (int, error) {
	if err := c.time.begin(c.TCPConn, len(p)); err != nil {
		return 0, err
	}
	c.ending.wrote(p)
	n, err := c.TCPConn.Write(p)
	if err != nil {
		_ = c.SetLinger(0)
	}
	return n, err
}

// ReadFrom implements [io.ReaderFrom]. This is where net/http hands over a body
// for which it has no more to do.
func (c *conn) ReadFrom(src io.Reader) (int64, error) {
	if b, ok := src.(*body); ok {
		return b.sendTo(c.TCPConn, c.take())
	}
	if err := c.release(); err != nil {
		return 0, err
	}
	return c.TCPConn.ReadFrom(src)
}

// writeTime gives each write on a connection its own deadline, unless somebody else
// has set one. net/http takes that back when a response has ended.
type writeTime struct {
	pace  pace
	timed atomic.Bool
}

// set sets a deadline, or takes it back if it is zero.
func (w *writeTime) set(c net.Conn, t time.Time) error {
	w.timed.Store(!t.IsZero())
	return c.SetWriteDeadline(t)
}

// begin is for a write of n bytes that begins now.
func (w *writeTime) begin(c net.Conn, n int) error {
	if w.timed.Load() {
		return nil
	}
	return c.SetWriteDeadline(w.pace.deadline(int64(n)))
}

// connKey is where a request's context has its conn.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if encrypted, ok := c.(*tls.Conn); ok {
		c = encrypted.NetConn()
	}
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// connOf returns the connection of a request, or nil in a server that is not
// ours. It may be one that is encrypted, or has other streams as well.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}
