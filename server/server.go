package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/db"
)

// Limits of connections to a [Server].
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10 // net/http adds 4 KiB of grace
)

// Server is an HTTP server for one store, with the fastest send path.
type Server struct {
	handler *Handler
	http    http.Server
	fast    fastPath
	ops     http.Server   // see ServeMetrics
	slowly  atomic.Int64  // connections that are net/http's
	slots   chan struct{} // see listener
	tls     bool
	slow    bool // for tests: all requests are net/http's
}

// New returns a server for store, which must stay open until Shutdown has
// returned. The options may be nil. It panics with what [Options.Check] says of
// them.
func New(store *db.DB, o *Options) *Server {
	if o == nil {
		o = &Options{}
	}
	h := NewHandler(store, o)
	s := &Server{handler: h, slots: make(chan struct{}, maxConns(o.MaxConns))}
	h.pace.scarce = func() bool { return len(s.slots) > cap(s.slots)/2 }
	s.configure(&s.http, h)
	s.configure(&s.ops, h.operations())
	s.http.ConnState = s.countConn
	h.connections = s.connections
	if o.TLS != nil {
		s.tls, s.http.TLSConfig = true, o.TLS.Clone()
	}
	s.fast = fastPath{handler: h, http: &s.http, conns: make(map[*fastConn]struct{})}
	return s
}

// configure prepares a server of net/http.
func (s *Server) configure(to *http.Server, h http.Handler) {
	to.Handler = h
	to.ReadHeaderTimeout = readHeaderTimeout
	to.IdleTimeout = idleTimeout
	to.MaxHeaderBytes = maxHeaderBytes
	to.ConnContext = withConn
	to.ErrorLog = errorLog(s.handler.log.Handler())
	to.DisableGeneralOptionsHandler = true // it would answer OPTIONS * to anybody
}

// ErrNotLoopback says that a server without tokens, or its figures, would have been
// open to the network.
var ErrNotLoopback = errors.New("not a loopback address")

// Listen opens a TCP listener for Serve, for a server with these tokens, see
// [Options]. Without any it refuses, with [ErrNotLoopback] and before anything is
// open, an address that others could connect to. That is also one without a host,
// such as ":7070". It needs no store, so that an address which is taken is known
// before one is opened.
func Listen(address string, tokens *Tokens) (net.Listener, error) {
	return listenIf(func(a net.Addr) error { return mayListen(a, tokens) }, address)
}

// listenIf opens a TCP listener for an address that nobody refuses.
func listenIf(may func(net.Addr) error, address string) (net.Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if err := may(a); err != nil {
		return nil, err
	}
	return net.ListenTCP("tcp", a)
}

// Serve answers requests that come to a listener until Shutdown, and closes
// the listener. It returns nil after Shutdown and [ErrNotLoopback] for a
// listener that Listen would not have opened.
func (s *Server) Serve(l net.Listener) error {
	if err := s.mayListen(l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	err := s.serve(s.handler.listener(l, s.slots))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// serve is Serve without a look at the address.
func (s *Server) serve(l net.Listener) error {
	switch {
	case s.tls:
		return s.http.ServeTLS(l, "", "")
	case s.slow:
		return s.http.Serve(l)
	}
	return s.http.Serve(s.fast.listen(l))
}

// Shutdown closes the listeners, ends a compaction that a client has asked for
// and waits for the other requests under way. When the context ends before them,
// it cuts them off and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.ops.Close()
	s.handler.end()
	s.http.SetKeepAlivesEnabled(false) // idle connections end now
	err := s.fast.stop(ctx)
	if err == nil {
		err = s.http.Shutdown(ctx)
	}
	if err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// Stats returns what the server has done since it was made.
func (s *Server) Stats() Stats { return s.handler.Stats() }

// SetTokens replaces [Options].Tokens for the requests that come from now on. A
// server that had none can't get any, and the new ones must not be nil.
func (s *Server) SetTokens(t *Tokens) error {
	if s.handler.tokens.Load() == nil || t == nil {
		return errors.New("tokens can be replaced by other tokens only")
	}
	s.handler.tokens.Store(t)
	return nil
}

// mayListen refuses an address that is not on this machine alone, unless there
// are tokens.
func (s *Server) mayListen(a net.Addr) error { return mayListen(a, s.handler.tokens.Load()) }

func mayListen(a net.Addr, tokens *Tokens) error {
	if tokens != nil {
		return nil
	}
	if err := loopbackOnly(a); err != nil {
		return fmt.Errorf("%w: without tokens the server is for this machine only", err)
	}
	return nil
}

// loopbackOnly refuses an address that is not on this machine alone. A socket in
// the file system is.
func loopbackOnly(a net.Addr) error {
	switch a := a.(type) {
	case *net.UnixAddr:
		return nil
	case *net.TCPAddr:
		if a.IP.IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("listen on %s: %w", a, ErrNotLoopback)
}
