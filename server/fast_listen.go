package server

import (
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// fastPath knows the connections that net/http does not know.
type fastPath struct {
	handler  *Handler
	http     *http.Server // for its timeouts
	stopping atomic.Bool  // set under mu

	mu        sync.Mutex
	listeners []*fastListener
	conns     map[*fastConn]struct{}
	loops     []*loop        // if the platform has them
	serving   sync.WaitGroup // one for each of conns
}

// stop closes listeners and idle connections, and waits for the requests under
// way. Those that turn out to be for net/http still get there. When the context
// ends first it cuts them off.
func (f *fastPath) stop(ctx context.Context) error {
	f.mu.Lock()
	f.stopping.Store(true)
	for _, l := range f.listeners {
		_ = l.closeInner() // its error is for net/http
	}
	all := slices.Collect(maps.Keys(f.conns))
	f.mu.Unlock()
	for _, c := range all {
		c.closeIdle()
	}
	defer f.closeLoops()

	done := make(chan struct{})
	go func() {
		f.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.abort()
	}
	return ctx.Err()
}

// serve begins to serve a connection, with a goroutine of its own if there is no
// loop.
func (f *fastPath) serve(tcp *conn, from *fastListener) {
	if f.serveByLoop(tcp, from) {
		return
	}
	s, err := newTCPStream(tcp.TCPConn, f.handler.pace.grace)
	if err != nil {
		tcp.Close()
		return
	}
	if c := f.add(s, tcp.free, from); c != nil {
		go c.serve()
	}
}

// add begins to know a connection. If the server shuts down it closes it and
// returns nil.
func (f *fastPath) add(s stream, free func(), from *fastListener) *fastConn {
	c := &fastConn{stream: s, free: free, handler: f.handler, from: from}
	c.answer.vary = f.handler.origins != nil
	c.lend, c.near, c.far = c.lent, c.resident, c.mayWait
	c.answer.limit = c
	if c.looped() {
		c.state.Store(connActive) // until the loop has it
	}
	c.readWithin(f.http.ReadHeaderTimeout, time.Now())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopping.Load() {
		c.Close()
		return nil
	}
	f.conns[c] = struct{}{}
	f.serving.Add(1)
	return c
}

// closeLoops comes when no connection begins any more.
func (f *fastPath) closeLoops() {
	for _, l := range f.loops {
		l.close()
	}
}

func (f *fastPath) remove(c *fastConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	f.serving.Done()
}

// listen returns a listener for net/http.
func (f *fastPath) listen(l net.Listener) *fastListener {
	fast := &fastListener{
		Listener: l, fast: f,
		handed: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{}),
		closeInner: sync.OnceValue(l.Close),
	}
	fast.closeOuter = sync.OnceFunc(func() { close(fast.closed) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners = append(f.listeners, fast)
	if f.loops == nil && !f.stopping.Load() {
		f.loops = newLoops(f)
	}
	return fast
}

// fastListener keeps new connections for the fast path, and gives net/http what
// is handed over later.
type fastListener struct {
	net.Listener
	fast   *fastPath
	begin  sync.Once
	handed chan net.Conn
	errs   chan error
	closed chan struct{} // by net/http

	closeInner func() error // once
	closeOuter func()
}

// Accept implements [net.Listener].
func (l *fastListener) Accept() (net.Conn, error) {
	l.begin.Do(func() { go l.accept() })
	select {
	case c := <-l.handed:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// accept takes new connections until the listener is closed. Errors go to
// net/http, which knows when to try again.
func (l *fastListener) accept() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if l.fast.stopping.Load() || l.fail(err) != nil {
				return
			}
			continue
		}
		if tcp, ok := c.(*conn); ok {
			l.fast.serve(tcp, l)
		} else if l.hand(c) != nil {
			c.Close()
		}
	}
}

// hand gives net/http a connection.
func (l *fastListener) hand(c net.Conn) error {
	select {
	case l.handed <- c:
		return nil
	case <-l.closed:
		return net.ErrClosed
	}
}

// fail gives net/http an error.
func (l *fastListener) fail(err error) error {
	select {
	case l.errs <- err:
		return nil
	case <-l.closed:
		return net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *fastListener) Close() error {
	l.closeOuter()
	return l.closeInner()
}
