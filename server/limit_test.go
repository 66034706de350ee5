package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMaxConns: when as many connections as may be are open, the next one waits,
// is said to wait, and is served as soon as one of the others has ended. Method:
// the server waits for a slot, so it has not even taken the connection.
func TestMaxConns(t *testing.T) {
	const most = 3
	for _, slow := range []bool{false, true} {
		var log bytes.Buffer
		store := openStore(t)
		put(t, store, "k", []byte("v"), nil)
		s, addr := start(t, store, &Options{MaxConns: most, Log: slog.New(slog.NewTextHandler(&log, nil))}, func(s *Server) { s.slow = slow })
		var open []*wire
		for range most {
			c := dial(t, addr)
			c.do("GET", "/k", "").wantBody(t, []byte("v"))
			open = append(open, c)
		}
		for i := range most {
			c := dial(t, addr)
			c.send("GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
			eventually(t, "it waits", func() bool { return s.Stats().Waited == uint64(i+1) })
			open[0].do("GET", "/k", "").wantStatus(t, 200) // the others go on
			eventually(t, "they are counted", func() bool { return s.Stats().Get.Success >= uint64(most+2*i+1) })
			if n := s.Stats().Get.Success; n != uint64(most+2*i+1) {
				t.Errorf("%d requests are answered", n)
			}
			open[0].Close()
			c.receive("GET").wantBody(t, []byte("v"))
			open = append(open[1:], c)
		}
		if n := strings.Count(log.String(), "have to wait"); n != 1 || !strings.Contains(log.String(), fmt.Sprint("connections=", most)) {
			t.Errorf("%d times in the log: %s", n, &log)
		}
	}
}

// TestSlotsComeBack: however a connection ends. Method: there may be one at a
// time, and each of many must get its turn.
func TestSlotsComeBack(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	putLarge(t, store)
	get := "GET /k HTTP/1.1\r\nHost: localhost\r\n"
	ends := map[string]func(c *wire){
		"at once":        func(c *wire) {},
		"idle":           func(c *wire) { c.send(get + "\r\n"); c.receive("GET") },
		"handed over":    func(c *wire) { c.send(get + "X-Odd: 1\r\n\r\n"); c.receive("GET") },
		"by the server":  func(c *wire) { c.send(get + "Connection: close\r\n\r\n"); c.receive("GET"); c.in.ReadByte() },
		"malformed":      func(c *wire) { c.send("\x00\r\n\r\n"); io.Copy(io.Discard, c.in) },
		"half of a head": func(c *wire) { c.send(get) },
		"half of a body": func(c *wire) { c.send("PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx") },
		"in a response": func(c *wire) {
			c.SetReadBuffer(4096)
			c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
			c.in.Peek(1)
		},
		"panic": func(c *wire) {
			c.send("PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
			io.Copy(io.Discard, c.in)
		},
		"panic in net/http": func(c *wire) {
			c.send("PUT /new HTTP/1.1\r\nHost: localhost\r\nX-Odd: 1\r\nContent-Length: 1\r\n\r\nx")
			io.Copy(io.Discard, c.in)
		},
	}
	pair := newPair(t, "server")
	cert, key := pair.write(t, t.TempDir())
	config, err := LoadTLS(cert, key, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{"plain": {}, "tls": {TLS: config}} {
		o.MaxConns, o.Log = 1, quiet()
		_, addr := start(t, store, &o, func(s *Server) {
			s.handler.now = func() time.Time { panic("on purpose") }
		})
		for round := range 4 {
			for how, end := range ends {
				w := dial(t, addr)
				if o.TLS != nil && round > 0 { // else nothing of it is a handshake
					c := tls.Client(w.TCPConn, &tls.Config{InsecureSkipVerify: true})
					if err := c.Handshake(); err != nil {
						t.Fatalf("%s, before %s: %v", name, how, err)
					}
				} else {
					end(w)
				}
				if round%2 == 1 {
					w.SetLinger(0)
				}
				w.Close()
			}
		}
	}
}

// TestUnixSocketSlots: so it is for connections that are not TCP.
func TestUnixSocketSlots(t *testing.T) {
	store := openStore(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		skip(t, "no unix sockets: "+err.Error())
	}
	s := New(store, &Options{MaxConns: 1})
	go s.Serve(l)
	defer s.Shutdown(context.Background())
	for range 5 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(c, "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if n, err := c.Read(make([]byte, 100)); n == 0 {
			t.Fatal(err)
		}
		c.Close()
	}
}

// TestShutdownWhileOneWaits: a server that waits for a slot can be ended. Method:
// the one who has the slot would keep it for an hour.
func TestShutdownWhileOneWaits(t *testing.T) {
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		putLarge(t, store)
		s := New(store, &Options{MaxConns: 1, Log: quiet()})
		fastPace(time.Hour)(s)
		s.slow = slow
		l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		c := askForLarge(t, l.Addr().String())
		if _, err := c.in.Peek(1); err != nil {
			t.Fatal(err)
		}
		dial(t, l.Addr().String())
		eventually(t, "the second waits", func() bool { return s.Stats().Waited == 1 })
		ended := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			s.Shutdown(ctx) // in time or not
			ended <- <-served
		}()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			c.Close() // else nothing would end here
			t.Error("the server does not end")
		}
		noHandles(t, store)
	}
}

func TestMaxConnsDefault(t *testing.T) {
	half := int(min(maxDescriptors()/2, math.MaxInt))
	for wanted, want := range map[int]int{0: min(defaultMaxConns, half), -1: min(defaultMaxConns, half), 1: 1, 7: 7, math.MaxInt: half} {
		if got := maxConns(wanted); got != want {
			t.Errorf("%d: %d, want %d", wanted, got, want)
		}
	}
}

// uploading begins a PUT and waits until it has taken so much memory.
func uploading(t *testing.T, s *Server, addr, header, begun string, used int64) *wire {
	t.Helper()
	c := dial(t, addr)
	c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n\r\n" + begun)
	eventually(t, fmt.Sprintf("%d bytes are taken", used), func() bool { return s.handler.inFlight.used.Load() == used })
	return c
}

// wantBusy fails unless a PUT that waits to be asked for its body, and one that
// does not, are refused and told to come again.
func wantBusy(t *testing.T, addr string, n int) {
	t.Helper()
	body := strings.Repeat("x", n)
	got, asked := hesitate(dial(t, addr), "new", body)
	if asked {
		t.Fatal("the body is asked for")
	}
	for _, got := range []reply{got, dial(t, addr).do("PUT", "/new", body)} {
		got.wantStatus(t, http.StatusServiceUnavailable)
		checkProblem(t, got)
		checkHeader(t, got, "Retry-After", "1")
	}
}

// TestMaxInFlight: uploads that would take more memory than there is for all of
// them are refused, on both ways, before any memory is taken, and succeed when
// there is some again. Reading goes on.
func TestMaxInFlight(t *testing.T) {
	const most = 3 << 20
	store := openStore(t)
	put(t, store, "v", []byte("v"), nil)
	s, addr := start(t, store, &Options{MaxInFlight: most, Log: failOnError(t)})
	first := uploading(t, s, addr, "Content-Length: 2097152", "x", 1<<20) // only announced
	first.send(strings.Repeat("x", 1<<20))
	eventually(t, "its first piece has come", func() bool { return s.handler.inFlight.used.Load() == 2<<20 })
	late := dial(t, addr).do("PUT", "/new", strings.Repeat("x", 1<<20+1)) // refused when a piece has come
	late.wantStatus(t, 503)
	checkHeader(t, late, "Retry-After", "1")
	checkHeader(t, late, "Connection", "close")
	wantAbsent(t, store, "new")
	dial(t, addr).do("PUT", "/new", strings.Repeat("x", 1<<20)).wantStatus(t, 201)
	second := uploading(t, s, addr, "Content-Length: 1048576", "", most)
	wantBusy(t, addr, 1) // one that would be on the fast path
	dial(t, addr).do("PUT", "/empty", "").wantStatus(t, 201)
	dial(t, addr).do("GET", "/v", "").wantStatus(t, 200)
	got := dial(t, addr).do("GET", "/", "")
	got.wantStatus(t, 503)
	checkHeader(t, got, "Retry-After", "1")
	if n := s.handler.inFlight.used.Load(); n != most {
		t.Errorf("%d bytes are taken after refusals", n)
	}

	second.SetLinger(0)
	second.Close()
	eventually(t, "it has let go", func() bool { return s.handler.inFlight.used.Load() == 2<<20 })
	dial(t, addr).do("GET", "/", "").wantStatus(t, 200)
	first.send(strings.Repeat("x", 1<<20-1))
	first.receive("PUT").wantStatus(t, 201)
	eventually(t, "nothing is taken", func() bool { return s.handler.inFlight.used.Load() == 0 })
	dial(t, addr).do("PUT", "/k", strings.Repeat("x", 2*most)).wantStatus(t, 204) // alone it may be as large as it likes
}

// chunk is one of a chunked body.
func chunk(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, strings.Repeat("x", n)) }

// TestMaxInFlightChunked: a body of unknown length takes memory as it comes. If
// there is none left the upload ends, and nothing is stored. One that is in a
// file needs little again.
func TestMaxInFlightChunked(t *testing.T) {
	const piece = uploadPiece
	store := openStore(t)
	s, addr := start(t, store, &Options{MaxInFlight: 5 * piece, Log: failOnError(t)})
	chunked := "Transfer-Encoding: chunked"
	first := uploading(t, s, addr, chunked, chunk(piece+1), 2*piece)
	second := uploading(t, s, addr, chunked, chunk(2*piece+1), 5*piece)
	wantBusy(t, addr, 1)
	second.send(chunk(piece))
	got := second.receive("PUT")
	got.wantStatus(t, 503)
	checkHeader(t, got, "Retry-After", "1")
	checkHeader(t, got, "Connection", "close")
	wantAbsent(t, store, "k")

	inFile := int(store.BlobSize())/piece + 1
	for range inFile - 1 { // more than there is, but it is alone now
		first.send(chunk(piece))
	}
	eventually(t, "it is in a file", func() bool { return s.handler.inFlight.used.Load() == piece })
	dial(t, addr).do("PUT", "/new", strings.Repeat("x", 4*piece)).wantStatus(t, 201)
	for range 5 {
		first.send(chunk(piece))
	}
	if n := s.handler.inFlight.used.Load(); n > piece {
		t.Errorf("%d bytes are taken", n)
	}
	first.send("0\r\n\r\n")
	first.receive("PUT").wantStatus(t, 201)
	v, err := store.Value([]byte("k"))
	if err != nil || v.Size() != int64(inFile+5)*piece+1 {
		t.Errorf("stored %d bytes, %v", v.Size(), err)
	}
	v.Close()
}

// TestSlowUploadsLeaveMemory: an upload that is slow takes what has come of it, and
// one that goes to a file 1 MiB, however long it said it is.
func TestSlowUploadsLeaveMemory(t *testing.T) {
	store := openStore(t)
	s, addr := start(t, store, &Options{MaxInFlight: 8 << 20, Log: failOnError(t)})
	blob := int(store.BlobSize())
	slow := uploading(t, s, addr, fmt.Sprintf("Content-Length: %d", blob-1), strings.Repeat("x", uploadPiece+1), 2<<20)
	large := uploading(t, s, addr, fmt.Sprintf("Content-Length: %d", blob), strings.Repeat("x", 5*uploadPiece), 3<<20)
	dial(t, addr).do("PUT", "/small", strings.Repeat("x", 4<<20)).wantStatus(t, 201)
	dial(t, addr).do("GET", "/", "").wantStatus(t, 200)
	for _, c := range []*wire{slow, large} {
		c.SetLinger(0)
		c.Close()
	}
}

// TestListingWaitsForNothing: a listing takes no memory, nor counts as any, while its
// client owes a body that nobody wants.
func TestListingWaitsForNothing(t *testing.T) {
	s, addr := start(t, largeListing(t), &Options{Log: failOnError(t)})
	const clients = 8
	before := allocated()
	var list []*wire
	for range clients {
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
		list = append(list, c)
	}
	eventually(t, "they are being answered", func() bool { _, slow := s.connections(); return slow == clients })
	time.Sleep(100 * time.Millisecond)
	if n := s.handler.inFlight.used.Load(); n != 0 {
		t.Errorf("%d bytes are taken", n)
	}
	if each := (allocated() - before) / clients; each > 200<<10 {
		t.Errorf("%d bytes of memory for each", each)
	}
	for _, c := range list {
		c.send("x")
		c.receive("GET").wantStatus(t, 200)
	}
}

// TestChunkedThatFits: a body is not refused for memory that it turns out not to
// need.
func TestChunkedThatFits(t *testing.T) {
	store := openStore(t)
	s, addr := start(t, store, &Options{MaxInFlight: 2 * uploadPiece, Log: failOnError(t)})
	other := uploading(t, s, addr, fmt.Sprintf("Content-Length: %d", uploadPiece), "x", uploadPiece)
	c := dial(t, addr)
	c.send("PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(uploadPiece))
	time.Sleep(50 * time.Millisecond)
	c.send("0\r\n\r\n")
	c.receive("PUT").wantStatus(t, 201)
	other.SetLinger(0)
	other.Close()
}

// TestSlotsOfListeners: a listener that waits for connections takes no slot from
// another one.
func TestSlotsOfListeners(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	s := New(store, &Options{MaxConns: 1, Log: quiet()})
	var all []string
	for range 3 {
		l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, serveUntilEnd(t, s, l))
	}
	for _, addr := range append(all, all...) {
		c := dial(t, addr)
		c.do("GET", "/k", "").wantStatus(t, 200)
		c.Close()
	}
}

// TestUnixReader: a client that does not read is got rid of on a socket in the file
// system too.
func TestUnixReader(t *testing.T) {
	store := openStore(t)
	for i := range 1000 {
		put(t, store, fmt.Sprintf("%04000d", i), nil, nil)
	}
	s := New(store, &Options{Log: quiet()})
	fastPace(100 * time.Millisecond)(s)
	name := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	serveUntilEnd(t, s, l)
	for _, ask := range []string{
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", strings.Repeat("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", 20_000),
	} {
		c, err := net.Dial("unix", name)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		go io.WriteString(c, ask)
		eventually(t, "it is being answered", func() bool { return len(s.slots) == 1 })
		eventually(t, "the server is rid of it", func() bool { return len(s.slots) == 0 && s.handler.inFlight.used.Load() == 0 })
	}
}

// drips are requests that never end, as a client sends them a byte at a time: what
// comes at once, what comes byte by byte, and how many answers come before.
var drips = []struct {
	name, begin, drip string
	answers           int
}{
	{"head", "", "GET /kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", 0},
	{"head of a second request", "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", 1},
	{"odd head", "GET /k HTTP/1.1\r\nX-Odd: ", strings.Repeat("x", 100), 0},
	{"head behind an odd one", "GET /k?x HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", 1},
	{"empty lines", "", strings.Repeat("\r\n", 50), 0},
	{"small body", "PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 100), 0},
	{"large body", "PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n", strings.Repeat("x", 100), 0},
	{"chunk", "PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n", strings.Repeat("x", 100), 0},
	{"small chunks", "PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 20), 0},
	{"length of a chunk", "PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", "1;" + strings.Repeat("x", 100), 0},
	{"trailer", "PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ", strings.Repeat("x", 100), 0},
	{"body that is refused", "PUT /new HTTP/1.1\r\nHost: localhost\r\nIf-Match: *\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 100), 0},
	{"body of a GET", "GET /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 100), 0},
	{"body that nobody reads", "POST /k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 20), 0},
}

// TestDripsEnd: a client that sends a byte at a time is rid of, on both ways,
// wherever it does so, and nothing of it is stored. Method: it sends faster than
// any time-out, for longer than the sum of them, and must see its end before it
// has sent everything.
func TestDripsEnd(t *testing.T) {
	const limit = 200 * time.Millisecond
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	for _, slow := range []bool{false, true} {
		_, addr := start(t, store, &Options{Log: failOnError(t)}, fastPace(limit), func(s *Server) {
			s.slow = slow
			s.http.ReadHeaderTimeout, s.http.IdleTimeout = limit, limit
		})
		ended := make(chan string)
		for _, d := range drips {
			c := dial(t, addr)
			c.send(d.begin)
			for range d.answers {
				c.receive("GET")
			}
			go func() {
				for i := range len(d.drip) {
					if _, err := io.WriteString(c, d.drip[i:i+1]); err != nil {
						ended <- ""
						return
					}
					time.Sleep(limit / 8)
				}
				ended <- d.name
			}()
		}
		for range drips {
			if name := <-ended; name != "" {
				t.Errorf("slow %v: %s: nobody ends it", slow, name)
			}
		}
	}
	wantAbsent(t, store, "new")
}

// TestDrippingHandshake: so is one that does not get as far as a request.
func TestDrippingHandshake(t *testing.T) {
	const limit = 200 * time.Millisecond
	s, addr, _ := startTLS(t, openStore(t), Options{Log: failOnError(t)}, func(s *Server) {
		s.http.ReadHeaderTimeout, s.http.IdleTimeout = limit, limit
	})
	c := dial(t, addr)
	c.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") // a ClientHello of 508 bytes begins
	for range 100 {
		if _, err := io.WriteString(c, "x"); err != nil {
			eventually(t, "the connection is closed", func() bool { return len(s.slots) == 0 })
			return
		}
		time.Sleep(limit / 8)
	}
	t.Error("nobody ends it")
}

// TestDrippingReaders: one that takes a byte at a time of what it has asked for is
// rid of too, and so is what was open for it. Method: it has asked for more than
// fits into all buffers, and the server has closed the connection before it has
// taken much.
func TestDrippingReaders(t *testing.T) {
	const grace = 300 * time.Millisecond
	store := openStore(t)
	putLarge(t, store)
	put(t, store, "small", noise(4000, 1), nil)
	for i := range 1000 {
		put(t, store, fmt.Sprintf("list/%0200d", i), nil, nil)
	}
	for _, slow := range []bool{false, true} {
		s := New(store, &Options{Log: failOnError(t)})
		fastPace(grace)(s)
		s.slow = slow
		l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
		if err != nil {
			t.Fatal(err)
		}
		addr := serveUntilEnd(t, s, smallBuffers{l, 16 << 10})
		for target, n := range map[string]int{"/large": 1, "/small": 200, "/none": 2000, "/?prefix=list/": 5, "/-/stats": 1000} {
			c := dial(t, addr)
			c.SetReadBuffer(4096)
			go io.WriteString(c, strings.Repeat("GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n", n))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			go func() {
				for err := error(nil); err == nil; time.Sleep(grace / 10) {
					_, err = c.Read(make([]byte, 1))
				}
			}()
		}
		eventually(t, "all connections are closed", func() bool { return len(s.slots) == 0 })
		noHandles(t, store)
	}
}

// smallBuffers leaves the kernel little room for what clients don't read.
type smallBuffers struct {
	net.Listener
	bytes int
}

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*net.TCPConn).SetWriteBuffer(l.bytes)
	}
	return c, err
}

// TestFiguresWhenFull: who watches a server gets its figures when all its
// connections are taken.
func TestFiguresWhenFull(t *testing.T) {
	s, addr := start(t, openStore(t), &Options{MaxConns: 1, Log: quiet()})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeMetrics(l)
	dial(t, addr).do("GET", "/k", "")
	dial(t, addr)
	eventually(t, "one waits", func() bool { return s.Stats().Waited == 1 })
	got := dial(t, l.Addr().String()).do("GET", "/-/metrics", "")
	got.wantStatus(t, 200)
	for _, line := range []string{"crowfly_connection_waits_total 1\n", "crowfly_in_flight_bytes 0\n"} {
		if !bytes.Contains(got.body, []byte("\n"+line)) {
			t.Errorf("there is no %q in %s", line, got.body)
		}
	}
}
