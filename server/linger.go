package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A server that closes a connection while the client still sends has the kernel
// reset it, and the reset overtakes the answer: a proxy that passes an upload on
// reports 502 or 503 in place of 401 or 413. So a connection that ends with a
// refusal ends in stages (RFC 9112, section 9.6): no more is written, what comes is
// read and dropped until the client closes, and only then is it closed.
//
// It may take the grace of a body in all, 30 seconds, and a sixth of that between two
// reads.
const (
	dropPauses = 6
	dropScarce = time.Second // in all, while connections are scarce
	dropBytes  = 1 << 30
	dropBuffer = 8 << 10
)

// ending is what a connection knows of its end.
type ending struct {
	refused atomic.Bool // the last answer was an error, or may have been: it is encrypted
	late    atomic.Bool // the client has had its time for what it did not send
	over    atomic.Bool // nothing can come any more, or nothing is to go out
}

// read notes how a read has ended.
func (e *ending) read(n int, err error) {
	if n > 0 || err != nil {
		e.late.Store(n == 0 && errors.Is(err, os.ErrDeadlineExceeded))
	}
	if err == io.EOF {
		e.over.Store(true)
	}
}

// wrote notes what a write begins with. A client that was too slow has had its time.
func (e *ending) wrote(p []byte) {
	if answer, ok := bytes.CutPrefix(p, []byte("HTTP/1.")); ok && len(answer) >= len("1 408") {
		status := string(answer[2:5])
		e.refused.Store((status[0] == '4' || status[0] == '5') && status != "408")
	}
}

// halfCloser is a connection that can end its own half alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// close closes a connection, in stages if that is needed, without waiting for it.
// free is called once it is closed.
func (e *ending) close(c net.Conn, p pace, free func()) error {
	half, ok := c.(halfCloser)
	if !ok || !e.refused.Load() || e.over.Load() || e.late.Load() || half.CloseWrite() != nil {
		defer free()
		return c.Close()
	}
	go func() {
		defer free()
		defer c.Close()
		drop(c, p)
	}()
	return nil
}

// drop reads and drops what comes.
func drop(c net.Conn, p pace) {
	room := make([]byte, dropBuffer)
	left := int64(dropBytes)
	for began := time.Now(); left > 0; {
		most := p.grace
		if p.scarce != nil && p.scarce() {
			most = min(most, dropScarce)
		}
		rest := most - time.Since(began)
		if rest <= 0 || c.SetReadDeadline(time.Now().Add(min(rest, p.grace/dropPauses))) != nil {
			return
		}
		n, err := c.Read(room)
		if err != nil {
			return
		}
		left -= int64(n)
	}
}
