package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/db"
)

// TestRestStealsNoEvent: who has taken a connection hears of what comes from then
// on, even if the goroutine that had it before is not quite done with it. Method:
// one goroutine lets a connection rest again and again. Each time it is taken at
// once by another one, and something comes, as if that one led its loop no more.
func TestRestStealsNoEvent(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4)))
	s := &loopStream{event: make(chan struct{}, 1)}
	s.conn = &fastConn{stream: s, from: &fastListener{fast: new(fastPath)}}
	s.conn.state.Store(connActive)

	var round, rested atomic.Int64
	go func() {
		for done := int64(0); ; {
			switch n := round.Load(); {
			case n < 0:
				return
			case n > done:
				if !s.rest() {
					panic("nothing has come before")
				}
				done = n
				rested.Store(n)
			}
		}
	}()
	defer round.Store(-1)
	end := time.Now().Add(time.Second)
	for n := int64(1); time.Now().Before(end); n++ {
		round.Store(n)
		for s.conn.state.Load() != connIdle {
		}
		if !s.take() {
			t.Fatal("it does not rest")
		}
		if s.take() {
			t.Fatal("it was taken twice")
		}
		for rested.Load() != n {
			runtime.Gosched()
		}
		if !s.came.Swap(false) {
			t.Fatalf("round %d: whoever has the connection does not hear that something has come", n)
		}
	}
}

// TestUrgentByte: a read that ends early need not have read all there is. The
// request behind an urgent byte is answered, and a connection with such a byte
// has no longer to rest than others.
func TestUrgentByte(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	for _, rest := range []string{"\r\n", "X-"} {
		s := New(store, nil)
		s.http.ReadHeaderTimeout = 300 * time.Millisecond
		s.http.IdleTimeout = 300 * time.Millisecond
		l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, l.Addr().String())
		c.send("GET /k HTTP/1.1\r\nHost: localhost\r\n")
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) }); err != nil {
			t.Fatal(err)
		}
		c.send(rest)
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		got, err := io.ReadAll(c.in)
		if rest == "\r\n" && !strings.HasPrefix(string(got), "HTTP/1.1 200 OK\r\n") {
			t.Errorf("answer %q", got)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after 5 s the connection, which had 0.3 s, is still open: got %q", got)
		}
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		s.Shutdown(ctx)
		cancel()
		<-done
	}
}

// TestRefusedByNetHTTP: a connection that net/http does not take over any more
// ends.
func TestRefusedByNetHTTP(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	s, addr, end := serveOn(t, store)
	c := dial(t, addr)
	c.do("GET", "/k", "").wantBody(t, []byte("value"))
	s.fast.mu.Lock()
	s.fast.listeners[0].closeOuter() // as http.Server does when it is closed
	s.fast.mu.Unlock()
	c.send("DELETE /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if n, err := io.Copy(io.Discard, c.in); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody has the connection, and it is open: %d bytes, %v", n, err)
	}
	_ = end(context.Background()) // Serve wonders about the listener
}

// TestSlowLogKeepsNobodyWaiting: a log that takes its time for one request keeps
// no other connection of the loop waiting.
func TestSlowLogKeepsNobodyWaiting(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	put(t, store, "slow", []byte("value"), nil)
	known(t, store, "k", "slow")
	block := make(chan struct{})
	_, addr := start(t, store, &Options{AccessLog: slog.New(slowLog{slog.DiscardHandler, block})})
	defer close(block)
	for range 3 * runtime.GOMAXPROCS(0) {
		dial(t, addr).do("GET", "/slow", "").wantStatus(t, 200)
	}
	for range 3 * runtime.GOMAXPROCS(0) {
		c := dial(t, addr)
		c.SetDeadline(time.Now().Add(3 * time.Second))
		c.do("GET", "/k", "").wantBody(t, []byte("value"))
	}
}

// known has the store verify values, as a first request does.
func known(t *testing.T, store *db.DB, keys ...string) {
	t.Helper()
	if err := store.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := store.View([]byte(key), func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

type slowLog struct {
	slog.Handler
	block chan struct{}
}

func (h slowLog) Enabled(context.Context, slog.Level) bool { return true }
func (h slowLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.String() == "/slow" {
			<-h.block
		}
		return true
	})
	return nil
}

// TestResidentNoLonger: whoever has to wait takes nothing for granted about what is
// in memory, since that takes time.
func TestResidentNoLonger(t *testing.T) {
	s := &loopStream{leads: &loop{begin: func() {}}}
	if !s.sender().Resident {
		t.Error("a leader does not know what it has looked at")
	}
	files := s.sender()
	s.mayWait()
	if files.Resident || s.sender().Resident {
		t.Error("after waiting it takes for granted what was in memory")
	}
}
