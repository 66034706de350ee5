package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// partOf is a part of a body, and what its header says.
type partOf struct{ contentRange, contentType, body string }

// partsIn reads the parts of a body, which must be nothing else but parts.
func partsIn(t *testing.T, contentType string, body []byte) (parts []partOf) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type %q: %v", contentType, err)
	}
	end := []byte("--" + params["boundary"] + "--\r\n")
	if !bytes.HasPrefix(body, []byte("--"+params["boundary"]+"\r\n")) || !bytes.HasSuffix(body, end) {
		t.Fatalf("body %.100q ... does not begin and end with the boundary", body)
	}
	for r := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Header) != 2 {
			t.Errorf("header of a part: %v", p.Header)
		}
		parts = append(parts, partOf{p.Header.Get("Content-Range"), p.Header.Get("Content-Type"), string(content)})
	}
}

// rangesOf is a Range header.
func rangesOf(spans []span) string {
	var list []string
	for _, s := range spans {
		list = append(list, fmt.Sprintf("%d-%d", s.off, s.off+s.n-1))
	}
	return "bytes=" + strings.Join(list, ",")
}

// wantParts fails unless a response has the given parts of a value, and nothing
// else.
func wantParts(t *testing.T, got reply, value []byte, spans []span, contentType string) {
	t.Helper()
	got.wantStatus(t, 206)
	if got.ContentLength != int64(len(got.body)) {
		t.Errorf("Content-Length %d, body of %d bytes", got.ContentLength, len(got.body))
	}
	checkHeader(t, got, "Content-Range", "-")
	checkHeader(t, got, "Content-Security-Policy", "sandbox")
	parts := partsIn(t, got.Header.Get("Content-Type"), got.body)
	if len(parts) != len(spans) {
		t.Fatalf("%d parts, want %d", len(parts), len(spans))
	}
	for i, s := range spans {
		want := partOf{fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.n-1, len(value)), contentType, string(value[s.off : s.off+s.n])}
		if parts[i] != want {
			t.Errorf("part %d: %.200q, want %.200q", i, parts[i], want)
		}
	}
}

// someSpans are spans of a value of size bytes, apart from each other and in no
// order, of sizes at which the way of a body changes.
func someSpans(random *rand.Rand, size int64) (spans []span) {
	lengths := []int64{1, 1, 100, sendfileMin - 1, sendfileMin, 100_000, sendPiece + 1}
	for off := random.Int64N(size); ; {
		n := lengths[random.IntN(len(lengths))]
		if off+n > size || len(spans) == maxRanges {
			break
		}
		spans = append(spans, span{off, n})
		off += n + 1 + random.Int64N(200_000)
	}
	random.Shuffle(len(spans), func(i, j int) { spans[i], spans[j] = spans[j], spans[i] })
	return spans
}

// TestParts asks for several ranges of values of every size, in a segment and in
// a file, on one connection: they come in the order of the request, exactly as
// long as it is said, and from where the value lies without a copy.
func TestParts(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: 8 << 20})
	sizes := []int64{1000, 100_000, 1 << 20, 6 << 20, 10 << 20}
	values := map[int64][]byte{}
	for i, n := range sizes {
		values[n] = noise(int(n), byte(i))
		put(t, store, fmt.Sprint(n), values[n], &db.Metadata{ContentType: "video/x"})
	}
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			s, addr := start(t, store, &Options{Log: failOnError(t)}, func(s *Server) { s.slow = slow })
			var c *wire
			random := rand.New(rand.NewPCG(1, 2))
			var small, large uint64
			for made := 0; made < 60; {
				if made%20 == 0 {
					c = dial(t, addr)
				}
				size := sizes[random.IntN(len(sizes))]
				spans := someSpans(random, size)
				if len(spans) < 2 {
					continue
				}
				made++
				got := c.do("GET", fmt.Sprint("/", size), "", "Range: "+rangesOf(spans))
				wantParts(t, got, values[size], spans, "video/x")
				for _, part := range spans {
					if part.n < sendfileMin {
						small += uint64(part.n)
					} else {
						large += uint64(part.n)
					}
				}
			}
			checkBytes(t, s.Stats, small, large, Copied{})
			if st := s.Stats(); slow != (st.Fast == 0) || st.HandedOver != 0 {
				t.Errorf("%d on the fast path, %d handed over", st.Fast, st.HandedOver)
			}
		})
	}
}

// TestPartsAnywhere: the same handler elsewhere, where it does what it can.
func TestPartsAnywhere(t *testing.T) {
	store := openStore(t)
	value := noise(300_000, 1)
	put(t, store, "k", value, nil)
	spans := []span{{7, 1}, {200_000, 100_000}, {1000, sendfileMin}}
	const small, large = 1, 100_000 + sendfileMin
	for name, c := range map[string]struct {
		start            func(*httptest.Server)
		wrap             func(http.Handler) http.Handler
		mapped, sendfile uint64
		copied           Copied
	}{
		"plain":     {start: (*httptest.Server).Start, mapped: small, sendfile: large},
		"tls":       {start: (*httptest.Server).StartTLS, copied: Copied{TLS: small + large}},
		"http2":     {start: startHTTP2, copied: Copied{HTTP2: small + large}},
		"wrapped":   {start: (*httptest.Server).Start, wrap: hideReadFrom, copied: Copied{Wrapped: small + large}},
		"no socket": {start: startNoSocket, copied: Copied{Wrapped: small + large}},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHandler(store, nil)
			var top http.Handler = h
			if c.wrap != nil {
				top = c.wrap(h)
			}
			server := httptest.NewUnstartedServer(top)
			c.start(server)
			defer server.Close()
			for range 2 { // the second one on the same connection
				r, err := http.NewRequest("GET", server.URL+"/k", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Range", rangesOf(spans))
				resp, err := server.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				wantParts(t, reply{resp, body}, value, spans, defaultType)
			}
			twice := Copied{HTTP2: 2 * c.copied.HTTP2, TLS: 2 * c.copied.TLS, Wrapped: 2 * c.copied.Wrapped}
			checkBytes(t, h.Stats, 2*c.mapped, 2*c.sendfile, twice)
		})
	}
}

// TestPartsRead: a ResponseWriter may read the body itself.
func TestPartsRead(t *testing.T) {
	store := openStore(t)
	value := noise(100_000, 1)
	put(t, store, "k", value, nil)
	h := NewHandler(store, nil)
	spans := []span{{5, 50_000}, {3, 1}, {60_000, 10}}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/k", nil)
	r.Header.Set("Range", rangesOf(spans))
	h.ServeHTTP(readingWriter{w}, r)
	got := w.Result()
	wantParts(t, reply{got, w.Body.Bytes()}, value, spans, defaultType)
	checkBytes(t, h.Stats, 0, 0, Copied{Wrapped: 50_011})
}

// TestPartsOfNoUse: what must not be answered with parts. The value has 1000
// bytes, and TAG stands for its entity tag.
func TestPartsOfNoUse(t *testing.T) {
	store := openStore(t)
	value := noise(1000, 1)
	put(t, store, "k", value, nil)
	put(t, store, "long", value, &db.Metadata{ContentType: "a/" + strings.Repeat("b", 3000)})
	_, addr := start(t, store, nil)
	tag := etagIn(t, store, "k")
	const two = "Range: bytes=0-0,2-2"
	sixteen := strings.TrimSuffix(strings.Repeat("0-0,", maxRanges), ",")
	for _, c := range []struct {
		name, method, key string
		header            []string
		status            int
		contentRange      string
		parts             bool
	}{
		{"two", "GET", "k", []string{two}, 206, "", true},
		{"HEAD", "HEAD", "k", []string{two}, 200, "", false},
		{"one is satisfiable", "GET", "k", []string{"Range: bytes=1000-,5-5,2000-"}, 206, "bytes 5-5/1000", false},
		{"one is left", "GET", "k", []string{"Range: bytes=3-4,5-5"}, 206, "bytes 3-5/1000", false},
		{"none is satisfiable", "GET", "k", []string{"Range: bytes=1000-,-0"}, 416, "bytes */1000", false},
		{"together larger than the value", "GET", "k", []string{"Range: bytes=0-,3-3"}, 200, "", false},
		{"as many as may be", "GET", "k", []string{"Range: bytes=" + sixteen}, 206, "bytes 0-0/1000", false},
		{"one more", "GET", "k", []string{"Range: bytes=" + sixteen + ",0-0"}, 200, "", false},
		{"one more, unsatisfiable", "GET", "k", []string{"Range: bytes=" + sixteen + ",1000-"}, 200, "", false},
		{"much between them", "GET", "long", []string{two}, 200, "", false},
		{"the tag", "GET", "k", []string{two, "If-Range: " + tag}, 206, "", true},
		{"another tag", "GET", "k", []string{two, `If-Range: "x"`}, 200, "", false},
		{"another tag, unsatisfiable", "GET", "k", []string{"Range: bytes=1000-,2000-", `If-Range: "x"`}, 200, "", false},
		{"a condition first", "GET", "k", []string{two, "If-None-Match: " + tag}, 304, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := dial(t, addr).do(c.method, "/"+c.key, "", c.header...)
			got.wantStatus(t, c.status)
			checkHeader(t, got, "Content-Range", c.contentRange)
			if parts := strings.HasPrefix(got.Header.Get("Content-Type"), "multipart/"); parts != c.parts {
				t.Errorf("Content-Type %q", got.Header.Get("Content-Type"))
			}
			if c.method == "GET" && c.status == 200 {
				got.wantBody(t, value)
			}
		})
	}
}

// TestDamagedParts: what comes behind sound parts is looked at before it leaves.
func TestDamagedParts(t *testing.T) {
	const size, bad = 14 << 20, 9 << 20
	value := noise(size, 1)
	dir := t.TempDir()
	store, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, store, "k", value, nil)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, dir, value[bad:bad+64])
	s, addr := start(t, openStoreIn(t, dir, &db.Options{}), &Options{Log: quiet()})

	c := dial(t, addr)
	c.send(fmt.Sprintf("GET /k HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-99,%d-%d\r\n\r\n", bad, bad+99))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil || resp.StatusCode != 206 {
		t.Fatalf("%v, %v", resp, err)
	}
	got, err := io.ReadAll(resp.Body)
	if err == nil || !bytes.Contains(got, value[:100]) || bytes.Contains(got, value[bad+64:bad+99]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	eventually(t, "the response is aborted", func() bool { return s.Stats().Aborted == 1 })

	first := dial(t, addr).do("GET", "/k", "", fmt.Sprintf("Range: bytes=%d-%d,0-99", bad, bad+99))
	first.wantStatus(t, 500) // before anything has left
	checkProblem(t, first)
}

// TestPartsAborted: a client may go away in the middle of a part.
func TestPartsAborted(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s, addr := start(t, store, &Options{Log: failOnError(t)})
	c := dial(t, addr)
	c.SetReadBuffer(4096)
	c.send("GET /large HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9,16-30000000\r\n\r\n")
	if _, err := io.CopyN(io.Discard, c.in, 10_000); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if n := store.Stats().Values; n != 1 && runtime.GOOS == "linux" {
		t.Errorf("%d open values", n)
	}
	c.SetLinger(0)
	c.Close()
	eventually(t, "the transfer is aborted", func() bool { return s.Stats().Aborted == 1 })
	noHandles(t, store)
}
