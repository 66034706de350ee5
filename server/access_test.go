package server

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// accessLine is a line of an access log.
type accessLine struct {
	Time, Level, Msg     string
	Method, Path, Remote string
	Status               int
	Bytes, Duration      int64
	Sent                 string
	Aborted              bool
}

// short is what a test can know of it beforehand.
func (l accessLine) short() string {
	return fmt.Sprintf("%s %s %d %d %s %v", l.Method, l.Path, l.Status, l.Bytes, l.Sent, l.Aborted)
}

// accessLog collects lines.
type accessLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (a *accessLog) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.Write(p)
}

func (a *accessLog) options() *Options {
	return &Options{AccessLog: slog.New(slog.NewJSONHandler(a, nil)), Log: quiet()}
}

// wait returns the lines once there are so many.
func (a *accessLog) wait(t *testing.T, n int) (lines []accessLine) {
	t.Helper()
	var text string
	eventually(t, fmt.Sprintf("%d lines of the access log", n), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		text = a.text.String()
		return strings.Count(text, "\n") >= n
	})
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	for dec.More() {
		var l accessLine
		if err := dec.Decode(&l); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		lines = append(lines, l)
	}
	if len(lines) != n {
		t.Errorf("%d lines, want %d: %s", len(lines), n, text)
	}
	return lines
}

// TestAccessLog: each answer is a line, the same by net/http and on the fast path,
// with the path of the key however it was written, and without the query. BYTES
// stands for the length of the body that came.
func TestAccessLog(t *testing.T) {
	sendfile := "sendfile"
	if runtime.GOOS != "linux" {
		sendfile = "mapped"
	}
	requests := []struct {
		method, target, body string
		header               []string
		want                 string
	}{
		{"GET", "/a%20b", "", nil, "GET /a%20b 200 1000 mapped false"},
		{"GET", "/large", "", nil, "GET /large 200 5242881 " + sendfile + " false"},
		{"GET", "/large", "", []string{"Range: bytes=1-20000"}, "GET /large 206 20000 " + sendfile + " false"},
		{"GET", "/large", "", []string{"Range: bytes=9999999-"}, "GET /large 416 BYTES made false"},
		{"GET", "/large", "", []string{"Range: bytes=1-2,5-30000"}, "GET /large 206 BYTES " + sendfile + " false"},
		{"GET", "/a%20b", "", []string{"Range: bytes=1-2,5-6"}, "GET /a%20b 206 BYTES mapped false"},
		{"HEAD", "/large", "", nil, "HEAD /large 200 0  false"},
		{"GET", "/a%20b", "", []string{"If-None-Match: *"}, "GET /a%20b 304 0  false"},
		{"GET", "/none", "", nil, "GET /none 404 BYTES made false"},
		{"HEAD", "/none", "", nil, "HEAD /none 404 0  false"},
		{"PUT", "/new", "value", nil, "PUT /new 201 0  false"},
		{"GET", "/n%65w", "", nil, "GET /new 200 5 mapped false"},
		// From here on net/http answers.
		{"DELETE", "/new", "", nil, "DELETE /new 204 0  false"},
		{"GET", "/a%20b", "", nil, "GET /a%20b 200 1000 mapped false"},
		{"GET", "/large", "", nil, "GET /large 200 5242881 " + sendfile + " false"},
		{"GET", "/large", "", []string{"Range: bytes=1-2,5-30000"}, "GET /large 206 BYTES " + sendfile + " false"},
		{"GET", "/-/healthz", "", nil, "GET /-/healthz 200 3 made false"},
		{"HEAD", "/?limit=1", "", nil, "HEAD / 200 0  false"},
		{"POST", "/-/%C3%A9?secret", "", nil, "POST /-/%C3%A9 404 BYTES made false"},
	}
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		put(t, store, "a b", noise(1000, 1), nil)
		put(t, store, "large", noise(5<<20+1, 1), nil)
		var log accessLog
		_, addr := start(t, store, log.options(), func(s *Server) { s.slow = slow })
		c := dial(t, addr)
		var want []string
		for _, r := range requests {
			got := c.do(r.method, r.target, r.body, r.header...)
			want = append(want, strings.ReplaceAll(r.want, "BYTES", strconv.Itoa(len(got.body))))
		}
		for i, l := range log.wait(t, len(requests)) {
			if l.short() != want[i] {
				t.Errorf("slow %v: %q, want %q", slow, l.short(), want[i])
			}
			if l.Msg != "request" || l.Level != "INFO" || l.Remote != c.LocalAddr().String() || l.Duration <= 0 || l.Duration > int64(time.Minute) {
				t.Errorf("%+v", l)
			}
		}
	}
}

// TestAccessLogSaysWhatWasCopied, and why.
func TestAccessLogSaysWhatWasCopied(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", noise(100, 1), nil)
	for way, c := range map[string]struct {
		start func(*httptest.Server)
		wrap  func(http.Handler) http.Handler
	}{
		"copied:buffered": {start: (*httptest.Server).Start},
		"copied:tls":      {start: (*httptest.Server).StartTLS},
		"copied:http2":    {start: startHTTP2},
		"copied:wrapped":  {start: (*httptest.Server).Start, wrap: hideReadFrom},
	} {
		var log accessLog
		var h http.Handler = NewHandler(store, log.options())
		if c.wrap != nil {
			h = c.wrap(h)
		}
		server := httptest.NewUnstartedServer(h)
		c.start(server)
		fetch(t, server.Client(), server.URL+"/k", "")
		if got := log.wait(t, 1)[0].short(); got != "GET /k 200 100 "+way+" false" {
			t.Errorf("%s: %q", way, got)
		}
		parts := fetch(t, server.Client(), server.URL+"/k", "bytes=1-2,5-6")
		if way == "copied:buffered" {
			way = "mapped" // several parts are not small enough to be
		}
		if got := log.wait(t, 2)[1].short(); got != fmt.Sprintf("GET /k 206 %d %s false", len(parts), way) {
			t.Errorf("%s: %q, want %d bytes", way, got, len(parts))
		}
		server.Close()
	}
}

// What a ResponseWriter reads by itself is in the log with all that is not of the
// value.
func TestAccessLogOfWhatIsRead(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", noise(100, 1), nil)
	var log accessLog
	r, w := httptest.NewRequest("GET", "/k", nil), httptest.NewRecorder()
	r.Header.Set("Range", "bytes=1-2,5-6")
	NewHandler(store, log.options()).ServeHTTP(readingWriter{w}, r)
	if l := log.wait(t, 1)[0]; l.Bytes != int64(w.Body.Len()) || l.Bytes < 100 || l.Sent != "copied:wrapped" {
		t.Errorf("%+v, want %d bytes", l, w.Body.Len())
	}
}

// TestAccessLogOfAborts: what has left of a body that did not get to its end is
// less than all, on both paths.
func TestAccessLogOfAborts(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	for _, slow := range []bool{false, true} {
		var log accessLog
		_, addr := start(t, store, log.options(), func(s *Server) { s.slow = slow })
		c := askForLarge(t, addr)
		if _, err := io.CopyN(io.Discard, c.in, 1000); err != nil {
			t.Fatal(err)
		}
		c.SetLinger(0)
		c.Close()
		if l := log.wait(t, 1)[0]; !l.Aborted || l.Status != 200 || l.Bytes >= 32<<20 || runtime.GOOS == "linux" && l.Sent != "sendfile" {
			t.Errorf("slow %v: %+v", slow, l)
		}
	}
	noHandles(t, store)
}

// A request that no answer came of is a line with status 0, on both paths.
func TestAccessLogOfPanics(t *testing.T) {
	store := openStore(t)
	for _, slow := range []bool{false, true} {
		var log accessLog
		_, addr := start(t, store, log.options(), func(s *Server) {
			s.slow = slow
			s.handler.now = func() time.Time { panic("on purpose") }
		})
		c := dial(t, addr)
		c.send("GET /k HTTP/1.1\r\nHost: localhost\r\n\r\nPUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nv")
		if got := log.wait(t, 2)[1].short(); got != "PUT /k 0 0  false" {
			t.Errorf("slow %v: %q", slow, got)
		}
	}
}

// Lines of a compaction are one answer.
func TestAccessLogOfCompact(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{SegmentSize: 128 << 10})
	waste(t, store, 40)
	var log accessLog
	_, addr := start(t, store, log.options())
	got := dial(t, addr).do("POST", "/-/compact", "")
	if l := log.wait(t, 1)[0]; l.Bytes != int64(len(got.body)) || l.Sent != "made" || l.Bytes == 0 {
		t.Errorf("%+v, want %d bytes", l, len(got.body))
	}
}
