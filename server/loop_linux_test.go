package server

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const plainGet = "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n"

// TestLeaderYields: a leader that always has something to do lets other goroutines
// hear of what has come on their connections. Method: with one processor, a
// goroutine reads from a pipe that is written to behind the runtime's back. Without
// a look at it that goroutine would go on after 10 ms, and not at once.
func TestLeaderYields(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s, _ := start(t, openStore(t), nil)
	l, err := newLoop(&s.fast)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 100
	var heard atomic.Int32
	go func() {
		for range rounds {
			if _, err := r.Read(make([]byte, 1)); err != nil {
				return
			}
			heard.Add(1)
		}
	}()
	late := 0
	for i := range rounds {
		for range 10 { // it waits for more by then
			runtime.Gosched()
		}
		if err := raw.Control(func(fd uintptr) { _, _ = syscall.Write(int(fd), []byte{1}) }); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			l.yield()
		}
		if int(heard.Load()) <= i {
			late++
		}
		eventually(t, "it has heard of it", func() bool { return int(heard.Load()) > i })
	}
	if late > rounds/10 {
		t.Errorf("%d of %d times it heard of it late", late, rounds)
	}
}

// TestLoopGoesOn: a connection that waits for its client, or for the store, keeps
// no other one waiting. Method: on each loop several clients do not read a large
// value, others begin a PUT and do not go on, and meanwhile one asks for
// something small.
func TestLoopGoesOn(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	put(t, store, "k", []byte("value"), nil)
	s, addr := start(t, store, nil)
	for range 3 * runtime.GOMAXPROCS(0) {
		stuck := dial(t, addr)
		stuck.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := stuck.in.Peek(1); err != nil {
			t.Fatal(err)
		}
		dial(t, addr).send("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
	}
	for range 3 * runtime.GOMAXPROCS(0) {
		dial(t, addr).do("GET", "/k", "").wantBody(t, []byte("value"))
	}
	if n := store.Stats().Values; n != 3*runtime.GOMAXPROCS(0) {
		t.Errorf("%d large values under way", n)
	}
	if s.Stats().Fast == 0 {
		t.Error("nothing was on the fast path")
	}
}

// flood is a client that sends a request whenever the server reads.
type flood struct {
	stream
	left   int
	leader bool
}

func (f *flood) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errLater
	}
	f.left--
	return copy(p, plainGet), nil
}

func (f *flood) mayWait()               { f.leader = false }
func (f *flood) resident(p []byte) bool { return true }
func (f *flood) looped() bool           { return true }
func (f *flood) writeBoth(header, body []byte) (int64, error) {
	return int64(len(header) + len(body)), nil
}
func (f *flood) readWithin(d time.Duration, from time.Time) {}
func (f *flood) writeWithin(d time.Duration)                {}

// TestFlood: a client that never stops sending has others served by somebody else
// soon, and not before.
func TestFlood(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	known(t, store, "k")
	s := New(store, nil)
	for _, requests := range []int{1, fastTurn - 1, fastTurn, 10 * fastTurn} {
		f := &flood{left: requests, leader: true}
		c := s.fast.add(f, func() {}, &fastListener{fast: &s.fast})
		if !c.serve() || c.served != requests {
			t.Errorf("%d of %d requests were answered", c.served, requests)
		}
		if want := requests < fastTurn; f.leader != want {
			t.Errorf("after %d requests it leads: %v", requests, f.leader)
		}
	}
}

// TestRestingTakesNoGoroutine, however many connections rest, and they go on.
func TestRestingTakesNoGoroutine(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	_, addr := start(t, store, nil)
	const conns = 200
	before := runtime.NumGoroutine()
	var list []*wire
	for range conns {
		c := dial(t, addr)
		c.do("GET", "/k", "")
		list = append(list, c)
	}
	eventually(t, "there are few goroutines", func() bool {
		return runtime.NumGoroutine() < before+runtime.GOMAXPROCS(0)+conns/10
	})
	for _, c := range list {
		c.do("GET", "/k", "").wantBody(t, []byte("value"))
	}
}

// TestManyAtOnce: of more requests than a read takes each is answered, in order,
// also those that come with the end of the connection.
func TestManyAtOnce(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", noise(5000, 1), nil)
	put(t, store, "m", noise(50_000, 2), nil)
	_, addr := start(t, store, nil)
	const rounds = 100
	for _, end := range []bool{false, true} {
		c := dial(t, addr)
		go func() {
			io.WriteString(c, strings.Repeat(plainGet+strings.Replace(plainGet, "/k", "/m", 1), rounds))
			if end {
				c.CloseWrite()
			}
		}()
		for range rounds {
			c.receive("GET").wantBody(t, noise(5000, 1))
			c.receive("GET").wantBody(t, noise(50_000, 2))
		}
		if !end {
			c.do("GET", "/k", "").wantStatus(t, 200)
		} else if n, err := io.Copy(io.Discard, c.in); n != 0 || err != nil {
			t.Errorf("then %d bytes and %v", n, err)
		}
	}
}

// TestEndIsNoticed: a connection that the client ends goes away at once, whatever
// state it is in.
func TestEndIsNoticed(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	put(t, store, "k", []byte("value"), nil)
	s, addr := start(t, store, nil)
	for _, text := range []string{"", "GET", plainGet, plainGet + plainGet + "GET /k"} {
		for _, hard := range []bool{false, true} {
			c := dial(t, addr)
			c.send(text)
			for range strings.Count(text, "\r\n\r\n") {
				c.receive("GET")
			}
			eventually(t, "it is known", func() bool { return fastConns(s) == 1 })
			if hard {
				c.SetLinger(0)
			}
			c.Close()
			eventually(t, "it is gone", func() bool { return fastConns(s) == 0 })
		}
	}
}

func fastConns(s *Server) int {
	s.fast.mu.Lock()
	defer s.fast.mu.Unlock()
	return len(s.fast.conns)
}

// TestLoopsEnd: after Shutdown nothing is left of the loops, whether there were
// connections or not.
func TestLoopsEnd(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	for _, conns := range []int{0, 1, 20} {
		before := epolls(t)
		_, addr, end := serveOn(t, store)
		eventually(t, "there are loops", func() bool { return epolls(t) == before+runtime.GOMAXPROCS(0) })
		for range conns {
			dial(t, addr).do("GET", "/k", "")
		}
		if err := end(context.Background()); err != nil {
			t.Error(err)
		}
		eventually(t, "all descriptors are closed", func() bool { return epolls(t) == before })
	}
}

// epolls is how many descriptors of epoll this process has.
func epolls(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, _ := os.Readlink(f); name == "anon_inode:[eventpoll]" {
			n++
		}
	}
	return n
}

// TestCutOff: when the time for Shutdown is up, a connection that waits for its
// client ends.
func TestCutOff(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s, addr, end := serveOn(t, store)
	c := dial(t, addr)
	c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := c.in.Peek(1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := end(ctx); err == nil {
		t.Error("the request ended by itself")
	}
	eventually(t, "it is gone", func() bool { return fastConns(s) == 0 })
	if n, err := io.Copy(io.Discard, c.in); err == nil || n >= 32<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestWithoutLoops: where there are none, a goroutine for each connection gives
// the same answers.
func TestWithoutLoops(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("value"), nil)
	put(t, store, "m", noise(100_000, 2), nil)
	s, addr := start(t, store, nil, func(s *Server) { s.fast.loops = []*loop{} })
	c := dial(t, addr)
	for range 3 {
		c.do("GET", "/k", "").wantBody(t, []byte("value"))
		c.do("GET", "/m", "").wantBody(t, noise(100_000, 2))
		c.do("PUT", "/new", "body").wantStatus(t, 201)
		if err := store.Delete([]byte("new"), nil); err != nil {
			t.Fatal(err)
		}
	}
	c.send("GET /k")
	c.CloseWrite()
	c.receive("GET").wantStatus(t, 400)
	if got := s.Stats(); got.Fast != 9 || got.HandedOver != 1 {
		t.Errorf("%+v", got)
	}
	c.Close()
	eventually(t, "it is gone", func() bool { return fastConns(s) == 0 })
}
