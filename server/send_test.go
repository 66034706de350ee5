package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// sizes lie around everything at which the way of a body changes.
var sizes = []int{
	1, 100, 2047, 2048, 4096, sendfileMin - 1, sendfileMin, sendfileMin + 1,
	100_000, 1<<20 - 1, 1 << 20, 1<<20 + 1, sendPiece, sendPiece + 1, 2*sendPiece + 12345,
}

// putSizes stores a value of each size and returns them by key.
func putSizes(t *testing.T, store *db.DB) map[string][]byte {
	t.Helper()
	values := map[string][]byte{}
	for i, n := range sizes {
		key := fmt.Sprint(n)
		values[key] = noise(n, byte(i))
		put(t, store, key, values[key], nil)
	}
	return values
}

// getAll gets all values and a range of each over one client.
func getAll(t *testing.T, client *http.Client, base string, values map[string][]byte) {
	t.Helper()
	for key, value := range values {
		if got := fetch(t, client, base+"/"+key, ""); !bytes.Equal(got, value) {
			t.Errorf("value of %s bytes: got %d others", key, len(got))
		}
		off, end := len(value)/3, len(value)-len(value)/5
		if got := fetch(t, client, base+"/"+key, fmt.Sprintf("bytes=%d-%d", off, end-1)); !bytes.Equal(got, value[off:end]) {
			t.Errorf("range %d-%d of the value of %s bytes: got %d others", off, end-1, key, len(got))
		}
	}
}

func fetch(t *testing.T, client *http.Client, url, rangeHeader string) []byte {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rangeHeader != "" {
		r.Header.Set("Range", rangeHeader)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// sums are the bytes of the bodies that getAll gets.
func sums(values map[string][]byte) (small, large uint64) {
	for _, v := range values {
		for _, n := range []int{len(v), len(v) - len(v)/5 - len(v)/3} {
			if n < sendfileMin {
				small += uint64(n)
			} else {
				large += uint64(n)
			}
		}
	}
	return small, large
}

// checkBytes compares the bytes by path. Where there is no sendfile, the
// mapping is written.
func checkBytes(t *testing.T, stats func() Stats, mapped, sendfile uint64, copied Copied) {
	t.Helper()
	if runtime.GOOS != "linux" {
		mapped, sendfile = mapped+sendfile, 0
	}
	// The last bytes arrive before they are counted.
	var s Stats
	eventually(t, "as many bytes as wanted", func() bool {
		s = stats()
		return s.Mapped+s.Sendfile+s.Copied.Total() >= mapped+sendfile+copied.Total()
	})
	if s.Mapped != mapped || s.Sendfile != sendfile || s.Copied != copied {
		t.Errorf("mapped %d, sendfile %d, copied %+v; want %d, %d, %+v", s.Mapped, s.Sendfile, s.Copied, mapped, sendfile, copied)
	}
	if s.Aborted != 0 || s.SendfileRefused != 0 && runtime.GOOS == "linux" {
		t.Errorf("%d aborted, %d refused", s.Aborted, s.SendfileRefused)
	}
	if sendfile > 0 && s.SendfileCalls == 0 {
		t.Error("sendfile calls are not counted")
	}
}

func TestServerCopiesNothing(t *testing.T) {
	store := openStore(t)
	values := putSizes(t, store)
	s, addr := start(t, store, nil)
	getAll(t, http.DefaultClient, "http://"+addr, values)
	small, large := sums(values)
	checkBytes(t, s.Stats, small, large, Copied{})
	want := Requests{Success: uint64(2 * len(values))}
	eventually(t, "all requests are counted", func() bool { return s.Stats().Get == want })
}

// TestAnyNetHTTPServer: the same handler elsewhere, where it does what it can, and
// the metrics say what took the rest away.
func TestAnyNetHTTPServer(t *testing.T) {
	store := openStore(t)
	values := putSizes(t, store)
	small, large := sums(values)
	for _, c := range []struct {
		name     string
		start    func(*httptest.Server)
		wrap     func(http.Handler) http.Handler
		sendfile uint64
		copied   Copied
	}{
		{name: "plain", start: (*httptest.Server).Start, sendfile: large, copied: Copied{Buffered: small}},
		{name: "tls", start: (*httptest.Server).StartTLS, copied: Copied{TLS: small + large}},
		{name: "http2", start: startHTTP2, copied: Copied{HTTP2: small + large}},
		{name: "wrapped", start: (*httptest.Server).Start, wrap: hideReadFrom, copied: Copied{Wrapped: small + large}},
		{name: "no socket", start: startNoSocket, copied: Copied{Wrapped: large, Buffered: small}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := NewHandler(store, nil)
			var top http.Handler = h
			if c.wrap != nil {
				top = c.wrap(h)
			}
			server := httptest.NewUnstartedServer(top)
			c.start(server)
			defer server.Close()
			getAll(t, server.Client(), server.URL, values)
			checkBytes(t, h.Stats, 0, c.sendfile, c.copied)
			wantSamples(t, scrape(t, h), map[string]float64{
				`sent_bytes_total{path="copied"}`:       float64(c.copied.Total()),
				`copied_bytes_total{reason="http2"}`:    float64(c.copied.HTTP2),
				`copied_bytes_total{reason="tls"}`:      float64(c.copied.TLS),
				`copied_bytes_total{reason="wrapped"}`:  float64(c.copied.Wrapped),
				`copied_bytes_total{reason="buffered"}`: float64(c.copied.Buffered),
			})
		})
	}
}

func startHTTP2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

// startNoSocket serves on connections of a type that net/http doesn't know.
func startNoSocket(s *httptest.Server) {
	s.Listener = plainListener{s.Listener}
	s.Start()
}

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

// hideReadFrom is what much middleware does.
func hideReadFrom(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	})
}

// TestReadFromThatReads: a ResponseWriter may read the body itself, and may
// not be able to flush the header first.
func TestReadFromThatReads(t *testing.T) {
	store := openStore(t)
	value := noise(100_000, 1)
	put(t, store, "k", value, nil)
	h := NewHandler(store, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(readingWriter{w}, httptest.NewRequest("GET", "/k", nil))
	if !bytes.Equal(w.Body.Bytes(), value) || w.Header().Get("Content-Length") != "100000" {
		t.Errorf("got %d other bytes", w.Body.Len())
	}
	checkBytes(t, h.Stats, 0, 0, Copied{Wrapped: uint64(len(value))})
}

type readingWriter struct{ http.ResponseWriter }

func (w readingWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, struct{ io.Reader }{r})
}

// TestNoFlush: middleware that passes ReadFrom on but no Flush. The beginning
// of the body is copied then, the rest is not.
func TestNoFlush(t *testing.T) {
	store := openStore(t)
	value := noise(100_000, 1)
	put(t, store, "k", value, nil)
	h := NewHandler(store, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(struct {
			http.ResponseWriter
			io.ReaderFrom
		}{w, w.(io.ReaderFrom)}, r)
	}))
	defer server.Close()
	if got := fetch(t, server.Client(), server.URL+"/k", ""); !bytes.Equal(got, value) {
		t.Errorf("got %d other bytes", len(got))
	}
	const copied = 512 // by net/http, to look at
	checkBytes(t, h.Stats, 0, uint64(len(value))-copied, Copied{Wrapped: copied})
}

// TestKeepAlive: whatever the response, the connection goes on, and nothing
// of a response is left behind in it.
func TestKeepAlive(t *testing.T) {
	store := openStore(t)
	values := putSizes(t, store)
	put(t, store, "empty", nil, nil)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	ask := func(status int, method, target, body string, header ...string) {
		t.Helper()
		got := c.do(method, target, body, header...)
		got.wantStatus(t, status)
		if got.Close {
			t.Fatalf("%s %s: the connection is closed", method, target)
		}
		if value := values[target[1:]]; method == "GET" && status == 200 && value != nil {
			got.wantBody(t, value)
		}
	}
	for range 3 {
		for key := range values {
			ask(200, "GET", "/"+key, "")
			ask(200, "HEAD", "/"+key, "")
			ask(304, "GET", "/"+key, "", "If-None-Match: *")
			ask(206, "GET", "/"+key, "", "Range: bytes=-1")
			ask(416, "GET", "/"+key, "", "Range: bytes=99999999-")
			ask(412, "GET", "/"+key, "", `If-Match: "x"`)
			ask(200, "GET", "/"+key, "with a body that nobody reads")
		}
		ask(200, "GET", "/empty", "")
		ask(404, "GET", "/none", "")
		ask(200, "GET", "/", "")
		ask(201, "PUT", "/new", "v")
		ask(204, "PUT", "/new", "w")
		ask(204, "DELETE", "/new", "")
		ask(405, "POST", "/new", "x")
		ask(204, "OPTIONS", "/new", "")
	}
}

// TestPipelined: requests may come before the responses are read.
func TestPipelined(t *testing.T) {
	store := openStore(t)
	values := putSizes(t, store)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	var order []string
	for key := range values {
		order = append(order, key, key)
		c.send("GET /" + key + " HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /" + key + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	for i, key := range order {
		if i%2 == 1 {
			c.receive("HEAD").wantStatus(t, 200)
			continue
		}
		got := c.receive("GET")
		got.wantStatus(t, 200)
		got.wantBody(t, values[key])
	}
}

// TestLongHeader: a header that net/http writes in several pieces.
func TestLongHeader(t *testing.T) {
	store := openStore(t)
	long := string(bytes.Repeat([]byte("x"), 30_000))
	value := noise(100_000, 1)
	put(t, store, "small", value[:1000], &db.Metadata{ContentDisposition: long})
	put(t, store, "large", value, &db.Metadata{ContentDisposition: long})
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for range 3 {
		for key, n := range map[string]int{"small": 1000, "large": len(value)} {
			got := c.do("GET", "/"+key, "")
			got.wantBody(t, value[:n])
			checkHeader(t, got, "Content-Disposition", long)
		}
	}
}

func TestHTTP10(t *testing.T) {
	store := openStore(t)
	values := putSizes(t, store)
	_, addr := start(t, store, nil)
	for key, value := range values {
		c := dial(t, addr)
		c.send("GET /" + key + " HTTP/1.0\r\n\r\n")
		got := c.receive("GET")
		got.wantBody(t, value)
		if _, err := c.in.ReadByte(); err != io.EOF {
			t.Errorf("after the response: %v", err)
		}
	}
}

// TestConcurrentRanges: all responses share one descriptor. With the position
// of the descriptor instead of an offset they would get each other's bytes.
func TestConcurrentRanges(t *testing.T) {
	const clients, responses = 32, 10_000
	store := openStore(t)
	var values [][]byte
	for i := range 64 {
		value := noise(1<<(4+i%15)+i, byte(i)) // 16 bytes to 256 KiB
		values = append(values, value)
		put(t, store, fmt.Sprint(i), value, nil)
	}
	if n := len(store.Stats().Segments); n != 1 {
		t.Fatalf("%d segments, want one", n)
	}
	s, addr := start(t, store, nil)
	var wg sync.WaitGroup
	for i := range clients {
		c := dial(t, addr)
		wg.Go(func() { getRanges(t, c, values, uint64(i), responses/clients+1) })
	}
	wg.Wait()
	if st := s.Stats(); runtime.GOOS == "linux" && (st.Sendfile == 0 || st.Mapped == 0 || st.Copied.Total() != 0) {
		t.Errorf("not all ways were used: %+v", st)
	}
}

func getRanges(t *testing.T, c *wire, values [][]byte, seed uint64, n int) {
	random := rand.New(rand.NewPCG(seed, 0))
	for range n {
		i := random.IntN(len(values))
		value := values[i]
		off := random.IntN(len(value))
		end := off + 1 + random.IntN(len(value)-off)
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: localhost\r\nRange: bytes=%d-%d\r\n\r\n", i, off, end-1)
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 206 || !bytes.Equal(body, value[off:end]) {
			t.Errorf("value %d, range %d-%d: status %d, wrong bytes, %v", i, off, end-1, resp.StatusCode, err)
			return
		}
	}
}

// askForLarge asks for a value that fits into no buffer.
func askForLarge(t *testing.T, addr string) *wire {
	t.Helper()
	c := dial(t, addr)
	c.SetReadBuffer(4096)
	c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	return c
}

func putLarge(t *testing.T, store *db.DB) {
	t.Helper()
	put(t, store, "large", noise(32<<20, 1), nil)
}

func TestClientAborts(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s, addr := start(t, store, &Options{Log: failOnError(t)})
	const clients = 20
	for range clients {
		c := askForLarge(t, addr)
		if _, err := io.CopyN(io.Discard, c.in, 1000); err != nil {
			t.Fatal(err)
		}
		c.SetLinger(0)
		c.Close()
	}
	eventually(t, "all transfers are aborted", func() bool { return s.Stats().Aborted == clients })
	noHandles(t, store)
}

func TestStuckReader(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s, addr := start(t, store, nil, fastPace(200*time.Millisecond))
	c := askForLarge(t, addr)
	eventually(t, "the transfer is aborted", func() bool { return s.Stats().Aborted == 1 })
	noHandles(t, store)
	if n, err := io.Copy(io.Discard, c.in); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client was not cut off: got %d bytes, %v", n, err)
	}
}

// TestStuckReaderElsewhere: a server that is not ours gets the deadlines too.
func TestStuckReaderElsewhere(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	h := NewHandler(store, nil)
	h.pace = pace{rate: 1 << 40, grace: 200 * time.Millisecond}
	server := httptest.NewServer(h)
	defer server.Close()
	askForLarge(t, server.Listener.Addr().String())
	eventually(t, "the transfer is aborted", func() bool { return h.Stats().Aborted == 1 })
	noHandles(t, store)
}

// TestStuckReaderOfLittle: responses that are small, but many.
func TestStuckReaderOfLittle(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", noise(4000, 1), nil)
	_, addr := start(t, store, nil, fastPace(200*time.Millisecond))
	for _, target := range []string{"/k", "/none"} {
		c := dial(t, addr)
		requests := bytes.Repeat([]byte("GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n"), 100)
		var err error
		for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); {
			c.SetWriteDeadline(end)
			_, err = c.Write(requests)
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a client that never reads can ask for ever: %v", target, err)
		}
	}
	noHandles(t, store)
}

// TestSlowReader: one who is slow but reads gets everything, though it takes
// longer than the time for a piece.
func TestSlowReader(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	const grace = time.Second
	s, addr := start(t, store, nil, fastPace(grace))
	c := dial(t, addr)
	c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var n int64
	for err == nil {
		var k int64
		k, err = io.CopyN(io.Discard, resp.Body, 1<<20)
		n += k
		time.Sleep(grace / 16)
	}
	if n != 32<<20 || err != io.EOF || s.Stats().Aborted != 0 {
		t.Errorf("%d bytes, %v, %d aborted", n, err, s.Stats().Aborted)
	}
	if took := time.Since(began); took < grace {
		t.Errorf("took only %v: nothing was tested", took)
	}
}

// TestAbortIsSeen: a handler that could not send everything must not return
// as if it had, whatever it runs in.
func TestAbortIsSeen(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	h := NewHandler(store, &Options{Log: failOnError(t)})
	defer func() {
		if r := recover(); r != http.ErrAbortHandler {
			t.Errorf("recovered %v", r)
		}
		if h.Stats().Aborted != 1 {
			t.Error("not counted")
		}
	}()
	h.ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest("GET", "/k", nil))
}

type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
