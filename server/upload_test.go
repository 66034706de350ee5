package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// wantAbsent fails if anything is stored under a key.
func wantAbsent(t *testing.T, store *db.DB, key string) {
	t.Helper()
	if _, err := store.Get(nil, []byte(key)); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("key %q: %v, want nothing stored", key, err)
	}
}

func TestPutSizes(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for _, n := range []int{0, 1, 511, 512, sendfileMin, uploadPiece - 1, uploadPiece, uploadPiece + 1, 3*uploadPiece + 7} {
		value := noise(n, byte(n))
		for _, form := range []string{"plain", "chunked"} {
			key := fmt.Sprintf("%s-%d", form, n)
			got := upload(c, key, value, form == "chunked")
			got.wantStatus(t, 201)
			if stored, err := store.Get(nil, []byte(key)); err != nil || !bytes.Equal(stored, value) {
				t.Errorf("%s: %d bytes stored, %v", key, len(stored), err)
			}
		}
	}
}

func upload(c *wire, key string, value []byte, chunked bool) reply {
	if !chunked {
		return c.do("PUT", "/"+key, string(value))
	}
	c.send("PUT /" + key + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
	for len(value) > 0 {
		n := min(len(value), 100_000)
		c.send(fmt.Sprintf("%x\r\n%s\r\n", n, value[:n]))
		value = value[n:]
	}
	c.send("0\r\n\r\n")
	return c.receive("PUT")
}

// TestPutShort: of a client that goes away in the middle nothing is stored.
func TestPutShort(t *testing.T) {
	store := openStore(t)
	s, addr := start(t, store, nil)
	for name, request := range map[string]string{
		"length":  "Content-Length: 1000\r\n\r\nonly this",
		"nothing": "Content-Length: 1000\r\n\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
		"chunk":   "Transfer-Encoding: chunked\r\n\r\n99\r\nonly this",
	} {
		c := dial(t, addr)
		c.send("PUT /" + name + " HTTP/1.1\r\nHost: localhost\r\n" + request)
		c.CloseWrite()
		got := c.receive("PUT")
		got.wantStatus(t, 400)
		checkHeader(t, got, "Connection", "close")
		wantAbsent(t, store, name)

		c = dial(t, addr)
		c.send("PUT /" + name + " HTTP/1.1\r\nHost: localhost\r\n" + request)
		c.SetLinger(0)
		c.Close()
	}
	eventually(t, "all requests have failed", func() bool { return s.Stats().Put == Requests{ClientError: 8} })
	for _, name := range []string{"length", "nothing", "chunked", "chunk"} {
		wantAbsent(t, store, name)
	}
}

func TestPutTooSlow(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil, fastPace(300*time.Millisecond))
	c := dial(t, addr)
	c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
	for range 5 { // a byte now and then does not help
		c.send("x")
		time.Sleep(10 * time.Millisecond)
	}
	got := c.receive("PUT")
	got.wantStatus(t, 408)
	checkHeader(t, got, "Connection", "close")
	wantAbsent(t, store, "k")
}

// TestHalfClosed: a client may say that it has no more to send, and then wait.
func TestHalfClosed(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: 2 << 20})
	_, addr := start(t, store, nil)
	for _, n := range []int{0, 5, 1<<20 + 5, 2 << 20, 3<<20 + 5} {
		body := string(noise(n, 1))
		for header, body := range map[string]string{
			fmt.Sprintf("Content-Length: %d", n): body,
			"Transfer-Encoding: chunked":         fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", max(n, 1), body+"x"[:max(1-n, 0)]),
		} {
			c := dial(t, addr)
			c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n\r\n" + body)
			c.CloseWrite()
			if got := c.receive("PUT"); got.StatusCode >= 300 {
				t.Errorf("%d bytes, %s: %s", n, header, got.Status)
			}
		}
	}
}

// TestHalfClosedPipeline: so may one that has sent several requests, though
// net/http takes the end of the input, seen during one request, for the end of
// all that follow.
func TestHalfClosedPipeline(t *testing.T) {
	store := openStore(t)
	put(t, store, "large", noise(100_000, 1), nil)
	_, addr := start(t, store, nil, func(s *Server) { s.slow = true })
	for range 50 {
		c := dial(t, addr)
		c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\nPUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv")
		c.CloseWrite()
		c.receive("GET").wantStatus(t, 200)
		if got := c.receive("PUT"); got.StatusCode >= 300 {
			t.Fatalf("%s: %s", got.Status, got.body)
		}
	}
}

// TestSlowUpload: one that goes on may take longer than the time for a piece.
func TestSlowUpload(t *testing.T) {
	const grace = 500 * time.Millisecond
	_, addr := start(t, openStore(t), nil, fastPace(grace))
	c := dial(t, addr)
	const pieces = 5
	c.send(fmt.Sprintf("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", pieces*uploadPiece))
	for range pieces {
		c.send(strings.Repeat("x", uploadPiece))
		time.Sleep(grace / 3)
	}
	c.receive("PUT").wantStatus(t, 201)
}

// TestDeadlineEndsWithTheBody: else the request would seem to be cancelled.
func TestDeadlineEndsWithTheBody(t *testing.T) {
	h := NewHandler(openStore(t), nil)
	h.pace = pace{rate: 1 << 40, grace: 300 * time.Millisecond}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		time.Sleep(2 * h.pace.grace)
		if err := r.Context().Err(); err != nil {
			t.Errorf("after the body: %v", err)
		}
	}))
	defer server.Close()
	c := dial(t, server.Listener.Addr().String())
	for _, n := range []int{1, uploadPiece} { // the latter is read to the end without an EOF
		c.do("PUT", "/"+fmt.Sprint(n), strings.Repeat("x", n)).wantStatus(t, 201)
	}
}

// TestPutTooLargeIsNotRead: the limit is the same on both ways, and for a body of
// unknown length.
func TestPutTooLargeIsNotRead(t *testing.T) {
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		_, addr := start(t, store, &Options{MaxBody: 100}, func(s *Server) { s.slow = slow })
		for _, n := range []int{101, 1_000_000} { // the answer comes before the body
			c := dial(t, addr)
			c.send(fmt.Sprintf("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", n))
			got := c.receive("PUT")
			got.wantStatus(t, 413)
			checkHeader(t, got, "Connection", "close")
		}
		got := upload(dial(t, addr), "k", make([]byte, 101), true)
		got.wantStatus(t, 413)
		checkHeader(t, got, "Connection", "close")
		wantAbsent(t, store, "k")

		upload(dial(t, addr), "k", make([]byte, 100), true).wantStatus(t, 201)
		upload(dial(t, addr), "k", make([]byte, 100), false).wantStatus(t, 204)
	}
}

func TestLargestValue(t *testing.T) {
	h := NewHandler(openStore(t), &Options{MaxBody: 1 << 40})
	if h.maxBody != db.MaxValue {
		t.Errorf("limit %d, want that of the store", h.maxBody)
	}
}

// TestPutWithoutLength: since HTTP/1.1 that is an empty body. Before, it is one
// of unknown length.
func TestPutWithoutLength(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	c.send("PUT /empty HTTP/1.1\r\nHost: localhost\r\n\r\n")
	c.receive("PUT").wantStatus(t, 201)
	if value, err := store.Get(nil, []byte("empty")); err != nil || len(value) != 0 {
		t.Errorf("got %q, %v", value, err)
	}
	c = dial(t, addr)
	c.send("PUT /k HTTP/1.0\r\n\r\nvalue")
	c.receive("PUT").wantStatus(t, 411)
	wantAbsent(t, store, "k")
	c = dial(t, addr)
	c.send("PUT /k HTTP/1.0\r\nContent-Length: 5\r\n\r\nvalue")
	c.receive("PUT").wantStatus(t, 201)
}

// TestLengthAndChunked: two lengths for one body are how requests get smuggled.
func TestLengthAndChunked(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
	c.receive("PUT").wantStatus(t, 400)
	wantAbsent(t, store, "k")
}

func TestExpectContinue(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, &Options{MaxBody: 100})
	expect := func(n int) *wire {
		c := dial(t, addr)
		c.send(fmt.Sprintf("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", n))
		return c
	}
	c := expect(5)
	if line := readLine(t, c.in); line != "HTTP/1.1 100 Continue" {
		t.Fatalf("got %q", line)
	}
	readLine(t, c.in)
	c.send("hello")
	c.receive("PUT").wantStatus(t, 201)

	c = expect(101) // refused without asking for the body
	c.receive("PUT").wantStatus(t, 413)

	c = dial(t, addr) // a GET with it gets its value and no 100
	c.send("GET /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	got := c.receive(http.MethodGet)
	got.wantStatus(t, 200)
	got.wantBody(t, []byte("hello"))
}

func readLine(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestPutLongHeaders(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil, func(s *Server) { s.http.MaxHeaderBytes = 1 << 20 })
	c := dial(t, addr)
	c.do("PUT", "/k", "v", "Content-Type: "+strings.Repeat("x", maxStoredHeaders)).wantStatus(t, 201)
	c.do("PUT", "/k", "v", "Content-Type: "+strings.Repeat("x", maxStoredHeaders), "Cache-Control: y").wantStatus(t, 431)
	checkHeader(t, c.do("GET", "/k", ""), "Content-Type", strings.Repeat("x", maxStoredHeaders))
}

// TestLongRequestHead: the limit of a Server, which net/http looks after on both
// ways.
func TestLongRequestHead(t *testing.T) {
	for _, slow := range []bool{false, true} {
		_, addr := start(t, openStore(t), nil, func(s *Server) { s.slow = slow })
		dial(t, addr).do("GET", "/k", "", "X-Long: "+strings.Repeat("x", maxHeaderBytes)).wantStatus(t, 404)
		dial(t, addr).do("GET", "/k", "", "X-Long: "+strings.Repeat("x", maxHeaderBytes+8<<10)).wantStatus(t, 431)
	}
}
