package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// TestListenLoopbackOnly: without tokens. What is refused never gets a socket.
func TestListenLoopbackOnly(t *testing.T) {
	s := New(openStore(t), nil)
	for _, address := range []string{"127.0.0.1:0", "127.9.9.9:0", "localhost:0", "[::1]:0", "[::ffff:127.0.0.1]:0"} {
		l, err := Listen(address, s.handler.tokens.Load())
		if errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil { // there may be no IPv6 here
			l.Close()
		}
	}
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0", "255.255.255.255:0"} {
		if l, err := Listen(address, s.handler.tokens.Load()); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, %v", address, l, err)
		}
	}
	if _, err := Listen("127.0.0.1", s.handler.tokens.Load()); err == nil {
		t.Error("an address without a port is accepted")
	}
}

// TestListenAnywhere: with tokens every address will do, for Listen and Serve,
// and so will every Host.
func TestListenAnywhere(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	s := New(store, &Options{Tokens: exampleTokens(t)})
	l, err := Listen("0.0.0.0:0", s.handler.tokens.Load())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, query := range []string{"", "?x"} { // on either way
		c := dial(t, "127.0.0.1:"+port)
		for _, host := range []string{"example.com", "192.0.2.1:7070", "localhost"} {
			c.send("GET /k" + query + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + tokenRO + "\r\n\r\n")
			c.receive("GET").wantBody(t, []byte("v"))
			c.send("GET /k" + query + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			c.receive("GET").wantStatus(t, 401)
		}
	}
	if err := errors.Join(s.Shutdown(t.Context()), <-done); err != nil {
		t.Error(err)
	}
}

// TestServeLoopbackOnly: a listener from elsewhere is looked at as well.
func TestServeLoopbackOnly(t *testing.T) {
	s := New(openStore(t), nil)
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	store := openStore(t)
	values := putSizes(t, store)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		skip(t, "no unix sockets: "+err.Error())
	}
	s := New(store, nil)
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	defer client.CloseIdleConnections()
	getAll(t, client, "http://unix", values)
}

func TestShutdown(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s := New(store, nil)
	l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := askForLarge(t, l.Addr().String())
	if _, err := c.in.ReadByte(); err != nil { // it has begun
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown over a response under way: %v", err)
	}

	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
	noHandles(t, store)
	if err := s.Serve(l); err != nil {
		t.Errorf("serve after shutdown: %v", err)
	}
}

func TestStatsCountRequests(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	s, addr := start(t, store, nil)
	c := dial(t, addr)
	c.do("GET", "/k", "")
	c.do("GET", "/k", "", "If-None-Match: *")
	c.do("GET", "/none", "")
	c.do("HEAD", "/k", "")
	c.do("PUT", "/k", "w")
	c.do("DELETE", "/k", "")
	c.do("POST", "/k", "x")
	c.do("OPTIONS", "/k", "")
	want := Stats{
		Get:    Requests{Success: 1, Redirect: 1, ClientError: 1},
		Head:   Requests{Success: 1},
		Put:    Requests{Success: 1},
		Delete: Requests{Success: 1},
		Other:  Requests{Success: 1, ClientError: 1},
		Mapped: 1,

		Fast: 5, HandedOver: 1,
	}
	eventually(t, "all requests are counted", func() bool { return s.Stats() == want })
}

func TestStatsCountSends(t *testing.T) {
	var c counters
	c.send(100, true, 1)
	c.send(100, true, 5)
	c.send(30, false, 3)
	if s := c.load(); s.Sendfile != 230 || s.SendfileCalls != 9 || s.SendfilePartial != 4+3 {
		t.Errorf("%+v", s)
	}
}

// connPair is a conn with the client's end.
func connPair(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewHandler(openStore(t), nil).listener(l, make(chan struct{}, 1)).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); c.Close() })
	return c.(*conn), client
}

// TestHeaderIsNeverKept: a held header leaves in order, whatever comes next.
func TestHeaderIsNeverKept(t *testing.T) {
	for name, next := range map[string]func(c *conn) error{
		"nothing": func(c *conn) error { return nil },
		"write":   func(c *conn) error { _, err := io.WriteString(c, ", more"); return err },
		"foreign body": func(c *conn) error {
			_, err := c.ReadFrom(struct{ io.Reader }{&io.LimitedReader{R: zeros{}, N: 100_000}})
			return err
		},
	} {
		c, client := connPair(t)
		c.hold()
		if _, err := io.WriteString(c, "header"); err != nil {
			t.Fatal(name, err)
		}
		go func() {
			if err := errors.Join(next(c), c.release()); err != nil {
				t.Error(name, err)
			}
			io.WriteString(c, ", end") // not held any more
			c.Close()
		}()
		text, err := io.ReadAll(client)
		want := map[string]string{
			"nothing":      "header, end",
			"write":        "header, more, end",
			"foreign body": "header" + string(make([]byte, 100_000)) + ", end",
		}[name]
		if err != nil || string(text) != want {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestReadErrorsAreOwnFaults: what the log hears of a response that was cut off.
func TestReadErrorsAreOwnFaults(t *testing.T) {
	for err, own := range map[error]bool{
		io.ErrUnexpectedEOF: true,
		&db.CorruptError{}:  true,
		net.ErrClosed:       false,
		io.ErrClosedPipe:    false,
	} {
		if ownFault(err) != own {
			t.Errorf("%v: %v", err, !own)
		}
	}
}
