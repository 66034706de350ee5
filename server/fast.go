package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/db"
)

// fastConn is a connection on the fast path: plain requests are read from it and
// answered, in order, until the client goes, or asks for something else and
// net/http takes the connection over for good. A goroutine of its own does that
// or, where there are loops, one that has taken it from its loop.
type fastConn struct {
	stream
	free    func() // its slot, when it is closed
	handler *Handler
	from    *fastListener

	state  atomic.Int32 // see connState
	served int          // requests
	host   []byte       // that was looked at last, and may be served

	in        [maxHead]byte
	next, end int       // in[next:end] is unread
	more      []byte    // unread as well, behind them: only for net/http
	begun     bool      // the next head has begun, and its time runs
	began     time.Time // the answer to the last request
	ended     time.Time

	head   head
	answer answer
	lend   func(db.Lent) error // c.lent, made once
	near   func([]byte) bool   // c.resident
	far    func()              // c.mayWait
	failed error               // of sending the answer

	departed departure
	out      []byte // room for a header
}

// connState says what Shutdown may do with a connection.
const (
	connIdle   int32 = iota // between requests: it may close it
	connActive              // it must wait
	connClosed              // it has closed it
)

// move is what comes next.
type move int

const (
	goOn     move = iota
	rest          // until something has come
	hangUp        // the connection ends
	handOver      // net/http goes on
)

// serve answers requests until the connection is to rest, ends, or is
// net/http's.
func (c *fastConn) serve() (rests bool) {
	handed := false
	defer func() {
		if p := recover(); p != nil {
			c.mayWait()
			c.handler.log.Error("panic in a request", "method", c.head.method, "panic", p, "stack", string(debug.Stack()))
			c.answer.status, c.departed = 0, departure{}
			c.count()
			_ = c.SetLinger(0)
		}
		if !handed && !rests {
			c.Close()
		}
		if !rests {
			c.from.fast.remove(c)
		}
	}()
	for before := c.served; ; {
		if c.served-before == fastTurn {
			c.mayWait()
		}
		switch c.step() {
		case rest:
			return true
		case hangUp:
			return false
		case handOver:
			handed = c.busy() && c.handOver()
			return false
		}
	}
}

// fastTurn is how many requests that a client sends without a break are answered
// before other clients need not wait for the end of them.
const fastTurn = 32

// begin is how many bytes net/http waits for behind a request before it looks
// at them. A few that the connection ends with are no request.
const begin = 4

// step answers the next request, or reads more of it.
func (c *fastConn) step() move {
	if c.served > 0 && c.end-c.next < begin {
		return c.read()
	}
	switch c.head.parse(c.in[c.next:c.end]) {
	case incomplete:
		return c.read()
	case doubtful:
		return handOver
	}
	if !c.admitted() {
		return handOver // which refuses it
	}
	if !c.busy() {
		return hangUp
	}
	what := c.request()
	c.begun = false
	if what == goOn && !c.idle() {
		what = hangUp
	}
	return what
}

// busy and idle say whether a request is under way. If they return false the
// server shuts down and the connection ends here.
func (c *fastConn) busy() bool {
	return c.state.CompareAndSwap(connIdle, connActive) || c.state.Load() == connActive
}

func (c *fastConn) idle() bool {
	if !c.looped() {
		c.state.Store(connIdle)
	}
	return !c.from.fast.stopping.Load()
}

// admitted is admit for a plain request, which is never below /-/.
func (c *fastConn) admitted() bool {
	if c.handler.tokens.Load() == nil {
		return c.local()
	}
	return c.handler.authorize(c.head.method, c.head.authorization) == refusal{}
}

// local is isOwnHost for a plain request.
func (c *fastConn) local() bool {
	if bytes.Equal(c.head.host, c.host) {
		return true
	}
	if !c.handler.servesHost(string(c.head.host)) {
		return false
	}
	c.host = append(c.host[:0], c.head.host...)
	return true
}

// read waits for more bytes. They have as much time as net/http gives them: a
// new connection and a head that has begun less than one that is idle.
func (c *fastConn) read() move {
	unread := c.end - c.next
	if unread == len(c.in) {
		return handOver // the head is too long
	}
	copy(c.in[:], c.in[c.next:c.end])
	c.next, c.end = 0, unread
	switch {
	case c.served == 0:
	case unread == 0:
		c.readWithin(c.from.fast.http.IdleTimeout, c.ended)
	case !c.begun:
		c.readWithin(c.from.fast.http.ReadHeaderTimeout, time.Now())
		c.begun = true
	}
	n, err := c.Read(c.in[c.end:])
	c.end += n
	switch err {
	case nil:
		return goOn
	case errLater:
		return rest
	}
	if err == io.EOF && (unread >= begin || unread > 0 && c.served == 0) {
		return handOver // which has something to say to that
	}
	return hangUp
}

// Close implements [stream], and gives the slot back.
func (c *fastConn) Close() error {
	defer c.free()
	return c.stream.Close()
}

// request answers the request that the unread bytes begin with.
func (c *fastConn) request() move {
	c.began = time.Now()
	c.answer.origin = ""
	if c.head.seen&seenOrigin != 0 {
		c.answer.origin = c.handler.origins.allowed(c.head.origin)
	}
	if c.head.method == http.MethodPut {
		return c.put()
	}
	c.failed = nil
	if err := c.handler.lend(c.head.key, c.near, c.far, c.lend); err != nil {
		if !errors.Is(err, db.ErrNotFound) {
			c.mayWait() // for the log
		}
		c.answer.refuse(c.handler.failure(c.head.method, err), nil)
		c.failed = c.send(c.began)
	}
	return c.done(c.head.size)
}

// lent answers GET and HEAD of a key that has a value.
func (c *fastConn) lent(v db.Lent) error {
	a := &c.answer
	a.fields, a.text = a.fields[:0], nil
	defer a.end()
	if err := a.get(c.handler, &c.head.request, &v); err != nil {
		return err
	}
	if b := &a.body; b.n > keepMin || len(b.after) > 0 || c.looped() && !c.resident(b.ready) {
		c.mayWait() // it takes long, or a disk has to be read
	}
	c.failed = c.send(c.began)
	return nil
}

// done ends a request that took n of the unread bytes.
func (c *fastConn) done(n int) move {
	c.next += n
	c.served++
	c.handler.stats.fast.Add(1)
	c.count()
	if cap(c.out) > 2*maxHead {
		c.out, c.answer.fields = nil, nil // an idle connection keeps little
	}
	if c.failed == nil {
		return goOn
	}
	return hangUp
}

// count counts a request, with the time from its beginning until now.
func (c *fastConn) count() {
	c.ended = time.Now()
	took := c.ended.Sub(c.began)
	c.handler.stats.request(c.head.method, c.answer.status, took)
	if c.handler.access != nil {
		c.mayWait()
		c.noteAccess(took)
	}
}

// send sends the answer, which gets the given time for its date.
func (c *fastConn) send(date time.Time) error {
	a := &c.answer
	out := appendStatusLine(c.out[:0], a.status)
	out = append(out, a.fields...)
	out = appendDate(out, date)
	if c.from.fast.stopping.Load() {
		out = append(out, "Connection: close\r\n"...)
	}
	out = append(out, "\r\n"...)
	c.out = out
	if a.body.n > 0 {
		return c.sendBody(out)
	}
	c.departed = departure{}
	if c.head.method != http.MethodHead && len(a.text) > 0 {
		out = append(out, a.text...)
		c.departed = made(len(a.text))
	}
	c.writeWithin(c.handler.pace.time(0))
	_, err := c.Write(out)
	c.departed.aborted = err != nil
	return err
}

// sendBody sends a header and a body. If it can't be sent to the end the
// connection is cut: that is the only way to tell the client.
func (c *fastConn) sendBody(header []byte) error {
	_, err := c.answer.body.sendTo(c, header)
	c.departed = c.answer.body.departed
	if err != nil {
		c.departed.aborted = true
		_ = c.SetLinger(0) // see exchange.send
		c.handler.stats.aborted.Add(1)
		if ownFault(err) {
			c.mayWait()
			c.handler.log.Error("response cut off", "method", c.head.method, "err", err)
		}
	}
	return err
}

// handOver gives the connection to net/http, with all that was not answered.
func (c *fastConn) handOver() bool {
	c.mayWait()
	tcp, err := c.tcp()
	if err != nil {
		return false
	}
	unread := append(bytes.Clone(c.in[c.next:c.end]), c.more...)
	c.handler.stats.handedOver.Add(1) // before net/http can answer
	to := &conn{TCPConn: tcp, free: c.free, time: writeTime{pace: c.handler.pace}, unread: unread}
	if c.from.hand(to) != nil {
		to.Close()
		return false
	}
	return true
}

// closeIdle closes the connection unless a request is under way.
func (c *fastConn) closeIdle() {
	if !c.state.CompareAndSwap(connIdle, connClosed) {
		return
	}
	if c.looped() {
		c.drop()
	} else {
		c.Close() // its goroutine hears of it
	}
}

// drop closes the connection for who has it.
func (c *fastConn) drop() {
	c.Close()
	c.from.fast.remove(c)
}
