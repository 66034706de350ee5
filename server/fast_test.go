package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// TestHandedOverForGood: the first request that is not plain, and all that come
// after it, are net/http's, whatever was read together with it.
func TestHandedOverForGood(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	s, addr := start(t, store, nil)
	c := dial(t, addr)
	plain := "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n"
	odd := "GET /k HTTP/1.1\r\nHost: localhost\r\nX-Unknown: 1\r\n\r\n"
	c.send(plain + plain + odd + plain + plain)
	for range 5 {
		got := c.receive("GET")
		got.wantBody(t, []byte("value"))
		if when, err := http.ParseTime(got.Header.Get("Date")); err != nil || time.Since(when).Abs() > time.Hour {
			t.Errorf("Date: %q", got.Header["Date"])
		}
	}
	c.do("GET", "/k", "").wantBody(t, []byte("value"))
	eventually(t, "all requests are counted", func() bool { return s.Stats().Get.Success == 6 })
	if st := s.Stats(); st.Fast != 2 || st.HandedOver != 1 || st.Mapped != 6*5 {
		t.Errorf("%+v", st)
	}
}

// TestReadTimeouts: a connection that is idle and one that has begun a request
// and does not go on are closed on both ways, each after its own time. Method: the
// other time is an hour. To half of a head net/http has something to say.
func TestReadTimeouts(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	request := "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for _, c := range []struct {
		name         string
		idle, header time.Duration
		text         string
		answers      int
	}{
		{"nothing", time.Hour, 100 * time.Millisecond, "", 0},
		{"begun", time.Hour, 100 * time.Millisecond, request[:20], 0},
		{"begun after another", time.Hour, 100 * time.Millisecond, request + request + request[:20], 2},
		{"idle", 100 * time.Millisecond, time.Hour, request + request, 2},
	} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, slow %v", c.name, slow), func(t *testing.T) {
				s, addr := start(t, store, nil, func(s *Server) {
					s.slow = slow
					s.http.IdleTimeout, s.http.ReadHeaderTimeout = c.idle, c.header
				})
				conn := dial(t, addr)
				conn.send(c.text)
				for range c.answers {
					conn.receive("GET").wantStatus(t, 200)
				}
				rest, err := io.ReadAll(conn.in)
				if err != nil || len(rest) > 0 && !(slow && bytes.HasPrefix(rest, []byte("HTTP/1.1 400 "))) {
					t.Errorf("%q and %v, want the end", rest, err)
				}
				if n := s.Stats().HandedOver; n != 0 {
					t.Errorf("%d handed over", n)
				}
			})
		}
	}
}

// TestTimeoutsBeginAnew: the time for a header is not used up by requests before it.
// Method: a client whose requests come in two pieces, with pauses in which a
// deadline set once would pass.
func TestTimeoutsBeginAnew(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	const limit = 400 * time.Millisecond
	s, addr := start(t, store, nil, func(s *Server) { s.http.IdleTimeout, s.http.ReadHeaderTimeout = limit, limit })
	c := dial(t, addr)
	for range 6 {
		c.send("GET /k HTTP/1.1\r\n")
		time.Sleep(limit / 4)
		c.send("Host: localhost\r\n\r\n")
		c.receive("GET").wantStatus(t, 200)
		time.Sleep(limit / 4)
	}
	eventually(t, "all were on the fast path", func() bool { return s.Stats().Fast == 6 })
}

// TestSlowPutIsHandedOver: who waits for a body is net/http, with all that has
// come of it.
func TestSlowPutIsHandedOver(t *testing.T) {
	store := openStore(t)
	s, addr := start(t, store, nil)
	for _, n := range []int{10, 20_000} {
		c := dial(t, addr)
		value := string(noise(n, 1))
		c.send(fmt.Sprintf("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", n, value[:n/2]))
		handed := s.Stats().HandedOver
		eventually(t, "the connection is handed over", func() bool { return s.Stats().HandedOver > handed })
		c.send(value[n/2:] + "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if got := c.receive("PUT"); got.StatusCode >= 300 {
			t.Fatal(got.Status)
		}
		c.receive("GET").wantBody(t, []byte(value))
	}
}

// TestFastPutSizes: bodies that come with the head, in part, and later.
func TestFastPutSizes(t *testing.T) {
	store := openStore(t)
	s, addr := start(t, store, nil)
	c := dial(t, addr)
	want := uint64(0)
	for _, n := range []int{0, 1, maxHead - 100, maxHead, maxHead + 1, fastBody - 1, fastBody} {
		value := noise(n, 7)
		next := "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n"
		c.send(fmt.Sprintf("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s%s", n, value, next))
		if got := c.receive("PUT"); got.StatusCode >= 300 {
			t.Fatal(got.Status)
		}
		c.receive("GET").wantBody(t, value)
		want += 2
	}
	eventually(t, "all were on the fast path", func() bool { return s.Stats().Fast == want })
	if got := c.do("PUT", "/k", string(noise(fastBody+1, 7))); got.StatusCode != 204 || s.Stats().HandedOver != 1 {
		t.Errorf("%s, %+v", got.Status, s.Stats())
	}
}

// serveOn serves a store and returns what ends the service.
func serveOn(t *testing.T, store *db.DB, adjust ...func(*Server)) (s *Server, addr string, end func(context.Context) error) {
	t.Helper()
	s = New(store, nil)
	for _, f := range adjust {
		f(s)
	}
	l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return s, l.Addr().String(), func(ctx context.Context) error { return errors.Join(s.Shutdown(ctx), <-done) }
}

// TestShutdownClosesIdle: connections without a request under way do not keep
// the server from its end.
func TestShutdownClosesIdle(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	_, addr, end := serveOn(t, store)
	idle, fresh, begun, other := dial(t, addr), dial(t, addr), dial(t, addr), dial(t, addr)
	begun.send("GET /k HTTP/1.1\r\n")
	other.do("GET", "/", "") // net/http's
	idle.do("GET", "/k", "")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := end(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	for i, c := range []*wire{idle, fresh, begun, other} {
		if n, _ := io.Copy(io.Discard, c.in); n != 0 {
			t.Errorf("connection %d: %d bytes", i, n)
		}
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening")
	}
}

// TestShutdownWaits: a response under way is sent to its end, then the
// connection is closed, with a request behind it unanswered. Meanwhile the store
// lists the value.
func TestShutdownWaits(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s, addr, end := serveOn(t, store)
	c := dial(t, addr)
	c.send(strings.Repeat("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", 2))
	if _, err := c.in.Peek(1); err != nil { // it has begun
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- end(ctx) }()
	eventually(t, "the server stops", s.fast.stopping.Load)
	select {
	case err := <-done:
		t.Fatalf("shutdown did not wait: %v", err)
	default:
	}
	if n := store.Stats().Values; n != 1 {
		t.Errorf("%d open values", n)
	}
	if got := c.receive("GET"); len(got.body) != 32<<20 {
		t.Errorf("got %d bytes", len(got.body))
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if n, err := io.Copy(io.Discard, c.in); n != 0 {
		t.Errorf("%d more bytes, %v", n, err)
	}
}

// TestCloseIsSaid: a response that is made when the server has begun to shut
// down tells that it is the last one.
func TestCloseIsSaid(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	s, addr, end := serveOn(t, store)
	defer end(context.Background())
	c := dial(t, addr)
	if got := c.do("GET", "/k", ""); got.Close {
		t.Error("closed before the end")
	}
	eventually(t, "it rests", func() bool { return fastState(s) == connIdle })
	s.fast.stopping.Store(true)
	got := c.do("GET", "/k", "")
	got.wantBody(t, []byte("v"))
	if _, err := c.in.ReadByte(); !got.Close || err != io.EOF {
		t.Errorf("close %v, then %v", got.Close, err)
	}
}

// fastState is the state of the only connection.
func fastState(s *Server) (state int32) {
	s.fast.mu.Lock()
	defer s.fast.mu.Unlock()
	for c := range s.fast.conns {
		state = c.state.Load()
	}
	return state
}

// TestShutdownLetsUploadsEnd: one that has begun is stored, and the answer tells that
// it is the last one, on either way; nobody else gets in meanwhile. Method: the
// second half of the body comes when the server has closed its listener.
func TestShutdownLetsUploadsEnd(t *testing.T) {
	for _, slow := range []bool{false, true} {
		for _, n := range []int{1000, 100_000} { // for the fast path, or not
			store := openStore(t)
			s, addr, end := serveOn(t, store, func(s *Server) { s.slow = slow })
			value := string(noise(n, 1))
			c := dial(t, addr)
			c.send(fmt.Sprintf("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", n, value[:n/2]))
			eventually(t, "it has begun", func() bool { return s.handler.inFlight.used.Load() > 0 })
			done := make(chan error, 1)
			go func() { done <- end(t.Context()) }()
			eventually(t, "nobody listens", func() bool {
				other, err := net.Dial("tcp", addr)
				if err == nil {
					other.Close()
				}
				return err != nil
			})
			c.send(value[n/2:])
			got := c.receive("PUT")
			if got.StatusCode != 201 || !got.Close {
				t.Errorf("slow %v, %d bytes: %s, Connection: close %v", slow, n, got.Status, got.Close)
			}
			if _, err := c.in.ReadByte(); err != io.EOF {
				t.Errorf("slow %v, %d bytes: then %v", slow, n, err)
			}
			if err := <-done; err != nil {
				t.Errorf("shutdown: %v", err)
			}
			if stored, err := store.Get(nil, []byte("k")); err != nil || string(stored) != value {
				t.Errorf("slow %v, %d bytes: stored %d bytes, %v", slow, n, len(stored), err)
			}
		}
	}
}

// TestPanicEndsTheConnection, and not the process.
func TestPanicEndsTheConnection(t *testing.T) {
	store := openStore(t)
	var log logText
	s, addr := start(t, store, &Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(s *Server) {
		s.handler.now = func() time.Time { panic("on purpose") }
	})
	c := dial(t, addr)
	c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv")
	if n, _ := io.Copy(io.Discard, c.in); n != 0 {
		t.Errorf("%d bytes", n)
	}
	dial(t, addr).do("GET", "/k", "").wantStatus(t, 404)
	if s.Stats().Put.ServerError != 1 || !strings.Contains(log.String(), "on purpose") {
		t.Errorf("%+v, log %q", s.Stats().Put, &log)
	}
}

// TestIdleHoldsNothing: a connection that goes on does not keep the segments it
// has sent from.
func TestIdleHoldsNothing(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	put(t, store, "large", noise(2<<20, 1), nil)
	s, addr := start(t, store, nil)
	for _, key := range []string{"k", "large"} {
		dial(t, addr).do("GET", "/"+key, "").wantStatus(t, 200)
	}
	eventually(t, "both were on the fast path", func() bool { return s.Stats().Fast == 2 })
	for _, key := range []string{"k", "large"} {
		if err := store.Delete([]byte(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the segment is gone", func() bool {
		runtime.GC()
		return store.Stats().Pinned.Segments == 0
	})
}

// TestFastGetAllocatesNothing: nor does it register anything, see db.Lend.
func TestFastGetAllocatesNothing(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", noise(1000, 1), &db.Metadata{ModTime: exampleTime, ContentType: "text/html"})
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for _, method := range []string{"GET", "HEAD"} {
		request := []byte(method + " /k HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n")
		answer := make([]byte, askOnce(t, c, request))
		n := testing.AllocsPerRun(500, func() {
			if _, err := c.Write(request); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, answer); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s allocates %v times", method, n)
		}
	}
}

// askOnce returns how long the answer to a request is.
func askOnce(t testing.TB, c net.Conn, request []byte) int {
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	method, _, _ := strings.Cut(string(request), " ")
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &all)), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return all.Len()
}
