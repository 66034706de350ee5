package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// ListenMetrics opens a TCP listener for ServeMetrics. It refuses an address that
// others could connect to, with or without tokens, as [Listen] does.
func ListenMetrics(address string) (net.Listener, error) {
	return listenIf(figuresMayListen, address)
}

// figuresMayListen refuses an address that is not on this machine alone: figures
// are there without a token.
func figuresMayListen(a net.Addr) error {
	if err := loopbackOnly(a); err != nil {
		return fmt.Errorf("%w: figures are for this machine only, also with tokens", err)
	}
	return nil
}

// ServeMetrics answers GET /-/metrics, /-/healthz and /-/readyz, and nothing
// else, on a listener of its own until the end of Shutdown: as long as requests
// are waited for it can be asked about them. The listener must be for this machine
// only, and is closed at the end. The error is as that of Serve.
func (s *Server) ServeMetrics(l net.Listener) error {
	if err := figuresMayListen(l.Addr()); err != nil {
		return errors.Join(err, l.Close())
	}
	err := s.ops.Serve(s.handler.listener(l, make(chan struct{}, maxOpsConns)))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// operations answers what is for those who run a server. The path is looked at as
// it came: /%2D/healthz is a key.
func (h *Handler) operations() http.Handler {
	metrics := h.Metrics()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.EscapedPath() {
		case reserved + "metrics":
			metrics.ServeHTTP(w, r)
		case reserved + "healthz", reserved + "readyz":
			h.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// connections counts the open ones.
func (s *Server) connections() (fast, slow int) {
	s.fast.mu.Lock()
	defer s.fast.mu.Unlock()
	return len(s.fast.conns), int(s.slowly.Load())
}

// countConn hears of the connections that are net/http's.
func (s *Server) countConn(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive: // a request has begun
		if secret, ok := c.(*tls.Conn); ok {
			if c, ok := secret.NetConn().(*conn); ok {
				c.ending.refused.Store(true) // what is written does not tell
			}
		}
	case http.StateNew:
		s.slowly.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.slowly.Add(-1)
	}
}
