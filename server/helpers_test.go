package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// skip skips a test, except where it must not be: a check that quietly stops
// running is worth nothing.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") == "1" {
		t.Fatal("not skipped: ", reason)
	}
	t.Skip(reason)
}

// openStore opens an empty store. At the end of the test no Value or Snapshot
// may be open: the server closes what it takes.
func openStore(t *testing.T) *db.DB {
	t.Helper()
	return openStoreIn(t, t.TempDir(), &db.Options{})
}

func openStoreIn(t *testing.T, dir string, o *db.Options) *db.DB {
	t.Helper()
	o.Sync = db.SyncNever
	store, err := db.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		noHandles(t, store)
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return store
}

// noHandles waits until the responses under way have closed their handles.
func noHandles(t *testing.T, store *db.DB) {
	t.Helper()
	eventually(t, "no open handles", func() bool {
		s := store.Stats()
		return s.Values == 0 && s.Snapshots == 0
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

func put(t *testing.T, store *db.DB, key string, value []byte, m *db.Metadata) {
	t.Helper()
	if err := store.Put([]byte(key), value, &db.PutOptions{Metadata: m}); err != nil {
		t.Fatal(err)
	}
}

// largeListing is a store whose listing is more than half a MiB.
func largeListing(t *testing.T) *db.DB {
	t.Helper()
	store := openStore(t)
	for i := range 1000 {
		put(t, store, fmt.Sprintf("%0500d", i), nil, nil)
	}
	return store
}

func etagIn(t *testing.T, store *db.DB, key string) string {
	t.Helper()
	v, err := store.Value([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	return etagOf(v.Version())
}

// noise returns n bytes that look like nothing else.
func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// quiet is the log of a test in which the server is meant to fail.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start serves a store and returns the server with its address.
func start(t *testing.T, store *db.DB, o *Options, adjust ...func(*Server)) (*Server, string) {
	t.Helper()
	s := New(store, o)
	for _, f := range adjust {
		f(s)
	}
	l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
	if err != nil {
		t.Fatal(err)
	}
	return s, serveUntilEnd(t, s, l)
}

// serveUntilEnd serves a listener until the test ends, and returns its address.
func serveUntilEnd(t *testing.T, s *Server, l net.Listener) (addr string) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		eventually(t, "all memory and all connections are given back", func() bool {
			return s.handler.inFlight.used.Load() == 0 && len(s.slots) == 0
		})
	})
	return l.Addr().String()
}

// fastPace gives up transfers soon.
func fastPace(grace time.Duration) func(*Server) {
	return func(s *Server) { s.handler.pace = pace{rate: 1 << 40, grace: grace} }
}

// wire is a connection on which requests are written byte for byte, which no
// HTTP client would leave as they are.
type wire struct {
	t *testing.T
	*net.TCPConn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{t: t, TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		w.t.Fatal(err)
	}
}

// reply is a response with its whole body.
type reply struct {
	*http.Response
	body []byte
}

func (w *wire) receive(method string) reply {
	w.t.Helper()
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s: no response: %v", method, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("%s: body: %v", method, err)
	}
	return reply{resp, body}
}

// do sends a request and receives its response. The header lines are given
// without their line ends.
func (w *wire) do(method, target, body string, header ...string) reply {
	w.t.Helper()
	if body != "" || method == http.MethodPut {
		header = append(header, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	w.send(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + lines(header) + "\r\n" + body)
	return w.receive(method)
}

func lines(header []string) string {
	var b strings.Builder
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

func (r reply) wantStatus(t *testing.T, status int) {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("status %s, want %d; body %.200q", r.Status, status, r.body)
	}
}

func (r reply) wantBody(t *testing.T, body []byte) {
	t.Helper()
	if !bytes.Equal(r.body, body) {
		t.Fatalf("body of %d bytes is not the %d bytes wanted", len(r.body), len(body))
	}
}

// failOnError is a log that must stay empty.
func failOnError(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Errorf("logged: %s", p)
	return len(p), nil
}

// logText is what a server has written to its log.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// allocated is how many bytes this process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
