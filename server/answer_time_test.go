package server

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// elsewhere has a Handler serve in another server.
func elsewhere(t *testing.T, other *http.Server, h http.Handler) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other.Handler = h
	served := make(chan error)
	go func() { served <- other.Serve(smallBuffers{l, 16 << 10}) }()
	t.Cleanup(func() { other.Close(); <-served })
	return l.Addr().String()
}

// TestAnswerAfterLongUpload: the answer to an upload comes, however long that has
// taken, whatever the WriteTimeout of another server.
func TestAnswerAfterLongUpload(t *testing.T) {
	const limit = time.Second // for the head as well
	h := NewHandler(openStore(t), &Options{Log: failOnError(t)})
	c := dial(t, elsewhere(t, &http.Server{ReadTimeout: limit, WriteTimeout: limit}, h))
	c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
	time.Sleep(limit * 3 / 2)
	c.send("cd")
	c.receive("PUT").wantStatus(t, 201)
}

// TestUnreadAnswersEnd: who does not read what was made for it is rid of in another
// server too, though that has no deadlines itself, and the memory comes back; also
// behind what keeps answers back and sends them when the Handler is done.
func TestUnreadAnswersEnd(t *testing.T) {
	h := NewHandler(largeListing(t), &Options{Log: quiet()})
	h.pace = pace{rate: 1 << 40, grace: 200 * time.Millisecond}
	var ended atomic.Int32
	count := func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			ended.Add(1)
		}
	}
	for _, handler := range []http.Handler{h, late{h}} {
		ended.Store(0)
		addr := elsewhere(t, &http.Server{ConnState: count}, handler)
		for target, n := range map[string]int{"/": 12, "/none": 10_000} {
			c := dial(t, addr)
			c.SetReadBuffer(4096)
			go io.WriteString(c, strings.Repeat("GET "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n", n))
		}
		eventually(t, "both connections have ended", func() bool { return ended.Load() == 2 })
		if n := h.inFlight.used.Load(); n != 0 {
			t.Errorf("%d bytes are taken", n)
		}
	}
}

// late keeps bodies back, whatever it is told.
type late struct{ http.Handler }

func (l late) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kept := &lateWriter{ResponseWriter: w}
	l.Handler.ServeHTTP(kept, r)
	w.Write(kept.body.Bytes())
}

type lateWriter struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (w *lateWriter) Write(p []byte) (int, error) { return w.body.Write(p) }
func (w *lateWriter) Flush()                      {}
func (w *lateWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestDrippedListingOverTLS: encrypted, a listing is hundreds of writes, and does not
// get the time of each of them. Method: a client that never stops to read, slowly.
func TestDrippedListingOverTLS(t *testing.T) {
	const grace = time.Second
	config, client := tlsConfig(t)
	s := New(largeListing(t), &Options{Log: quiet(), TLS: config})
	fastPace(grace)(s)
	l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
	if err != nil {
		t.Fatal(err)
	}
	c, w := dialTLS(t, serveUntilEnd(t, s, smallBuffers{l, 16 << 10}), client)
	w.SetReadBuffer(16 << 10)
	if _, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 4)); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 16<<10)
	for range 60 {
		if _, err := io.ReadFull(c, piece); err != nil {
			eventually(t, "its memory is given back", func() bool { return s.handler.inFlight.used.Load() == 0 })
			return
		}
		time.Sleep(grace / 10)
	}
	t.Error("nobody ends it")
}

// TestListingTakesWhatItHas: as soon as a listing is made it counts as the memory it
// has, and no longer as what it might have had.
func TestListingTakesWhatItHas(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", nil, nil)
	h := NewHandler(store, &Options{Log: failOnError(t)})
	w := &budgetRecorder{ResponseRecorder: httptest.NewRecorder(), budget: &h.inFlight}
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if n := int64(w.Body.Len()); w.Code != 200 || w.used < n || w.used > 64<<10 {
		t.Errorf("%d bytes, for which %d are taken: %d", w.Body.Len(), w.used, w.Code)
	}
	if n := h.inFlight.used.Load(); n != 0 {
		t.Errorf("%d bytes are taken in the end", n)
	}
}

// budgetRecorder looks at what is taken while a response is written.
type budgetRecorder struct {
	*httptest.ResponseRecorder
	budget *budget
	used   int64
}

func (w *budgetRecorder) Write(p []byte) (int, error) {
	w.used = w.budget.used.Load()
	return w.ResponseRecorder.Write(p)
}
