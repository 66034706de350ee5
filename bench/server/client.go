package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/bench/measure"
)

// loop is a thread with some of the connections. It does without what Go has for
// networks, since on a machine of two processors what a client takes is missed
// by the server.
type loop struct {
	*phase
	job
	epoll    int
	clients  []*client
	waiting  int // for an answer
	requests [][]byte
	rng      *rand.Rand
	began    time.Time
	head     [firstRead]byte
	body     []byte  // of the answer that is checked
	checking *client // whose it is
	answers  int
	checked  int

	bytes int64             // of bodies, that count
	times measure.Histogram // from the request to the last byte of the answer
	err   error
}

// firstRead is how much is read of an answer until its header is known. What
// more there is of the body is dropped in the kernel.
const firstRead = 8 << 10

// client is a connection.
type client struct {
	fd     int
	number int           // of the object that was asked for
	asked  time.Duration // since loop.began
	begun  bool          // the header has come
	left   int64         // bytes of the body
}

var errEnded = errors.New("connection ended by the server")

// open connects once more.
func (l *loop) open(address string) error {
	s, err := sockaddr(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c := &client{fd: fd}
	l.clients = append(l.clients, c)
	if err := unix.Connect(fd, s); err != nil {
		return err
	}
	if err := errors.Join(unix.SetNonblock(fd, true), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)); err != nil {
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(l.clients) - 1)}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event)
}

func (l *loop) close() {
	for _, c := range l.clients {
		unix.Close(c.fd)
	}
	unix.Close(l.epoll)
}

// run goes on until it is to stop and has checked an answer, has reached the limit
// or fails. Then the others stop too.
func (l *loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range l.clients {
		if l.err == nil {
			l.err = l.ask(c, time.Since(l.began))
		}
	}
	events := make([]unix.EpollEvent, len(l.clients))
	for l.err == nil && l.waiting > 0 && (!l.stop.Load() || l.checked == 0 && !l.failed.Load()) {
		n, err := unix.EpollWait(l.epoll, events, 100)
		if err != nil && err != unix.EINTR {
			l.err = err
		}
		for _, e := range events[:max(n, 0)] {
			if err := l.read(l.clients[e.Fd]); err != nil && l.err == nil {
				l.err = err
			}
		}
	}
	if l.err != nil {
		l.failed.Store(true)
		l.stop.Store(true)
	}
}

// ask sends a request, unless there have been enough.
func (l *loop) ask(c *client, now time.Duration) error {
	c.number = l.rng.IntN(l.Count)
	if l.Limit > 0 {
		i := int(l.phase.asked.Add(1)) - 1
		if i >= l.Limit {
			return nil
		}
		if l.InOrder {
			c.number = i % l.Count
		}
	}
	l.waiting++
	c.asked, c.begun, c.left = now, false, l.Size
	request := l.requests[c.number]
	n, err := unix.Write(c.fd, request)
	if err == nil && n < len(request) {
		err = io.ErrShortWrite
	}
	return err
}

// read reads what has come, and asks for more after the last byte.
func (l *loop) read(c *client) error {
	if !c.begun {
		if err := l.readHead(c); !c.begun || err != nil {
			return err
		}
	}
	if c.left > 0 {
		if err := l.readBody(c); c.left > 0 || err != nil {
			return err
		}
	}
	now := time.Since(l.began)
	if l.counts.Load() {
		l.times.Add(now - c.asked)
		if l.times.Total == 1 {
			l.answered.Store(true)
		}
	}
	l.waiting--
	return errors.Join(l.compare(c), l.ask(c, now))
}

// readHead reads a header, with what comes with it of the body. A server that
// sends it in pieces, though it is short and nothing is in its way, does not do
// what is measured here.
func (l *loop) readHead(c *client) (err error) {
	n, err := l.receive(c, l.head[:], 0)
	if n == 0 || err != nil {
		return err
	}
	head, body, ok := bytes.Cut(l.head[:n], []byte("\r\n\r\n"))
	if !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer: %.200q", head)
	}
	_, length, _ := bytes.Cut(head, []byte("\r\nContent-Length: "))
	length, _, _ = bytes.Cut(length, []byte("\r"))
	if got, err := strconv.ParseInt(string(length), 10, 64); got != l.Size || err != nil || int64(len(body)) > got {
		return fmt.Errorf("length %q with %d bytes, want %d", length, len(body), l.Size)
	}
	if l.checking == nil && l.answers%l.Every == 0 {
		l.checking = c
		copy(l.body, body)
	}
	l.answers++
	c.begun = true
	l.took(c, len(body))
	return nil
}

// readBody drops what has come of a body, or keeps it to be compared.
func (l *loop) readBody(c *client) error {
	into, flags := l.body[l.Size-c.left:], 0
	if l.checking != c {
		flags = unix.MSG_TRUNC
	}
	n, err := l.receive(c, into, flags)
	l.took(c, n)
	return err
}

// receive returns 0 if nothing has come.
func (l *loop) receive(c *client, into []byte, flags int) (n int, err error) {
	n, _, err = unix.Recvfrom(c.fd, into, flags)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err == nil && n == 0:
		err = errEnded
	}
	return n, err
}

// took counts bytes of the body.
func (l *loop) took(c *client, n int) {
	c.left -= int64(n)
	if l.counts.Load() {
		l.bytes += int64(n)
	}
}

// compare ends an answer, of which all has come.
func (l *loop) compare(c *client) error {
	if l.checking != c {
		return nil
	}
	l.checking = nil
	l.checked++
	return check(l.body, c.number)
}

// sockaddr reads an address such as 127.0.0.1:80.
func sockaddr(address string) (unix.Sockaddr, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().Is4() {
		return nil, fmt.Errorf("%q is no address", address)
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
}
