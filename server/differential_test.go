package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// TestFastPathIsNetHTTP sends the same bytes to a server with the fast path and
// to one without, each with a store of the same history, and compares all that
// comes back, byte for byte: status, header in its order, body and whether the
// connection goes on. The requests are valid, odd and hostile, several to a
// connection, and cut into pieces on their way, some after every byte. In the
// end both have counted the same things and both stores are the same.
func TestFastPathIsNetHTTP(t *testing.T) {
	n := 10_000
	if raceDetector {
		n = 3_000 // it makes them take several times as long
	}
	compareWays(t, n, &generator{})
}

// TestFastPathIsNetHTTPWithTokens is the same with tokens of every kind in the
// requests, of which most may do what is asked.
func TestFastPathIsNetHTTPWithTokens(t *testing.T) {
	compareWays(t, 2000, &generator{tokens: exampleTokens(t)})
}

func compareWays(t *testing.T, requests int, g *generator) {
	g.random = rand.New(rand.NewPCG(1, 1))
	g.hostile = slices.Clone(hostile)
	for _, subject := range slices.Sorted(maps.Keys(hostileCases)) {
		for _, c := range hostileCases[subject] {
			g.hostile = append(g.hostile, crlf(c.text))
		}
	}
	fast, slow := newTwin(t, false, g.tokens), newTwin(t, true, g.tokens)
	g.tag = func(key string) string { return etagOrNone(t, fast.store, key) }
	conns, resets := 0, 0
	for ; g.made < requests && !t.Failed(); conns++ {
		text := g.connection()
		cuts := g.cuts(len(text))
		got, gotReset := fast.talk(t, text, cuts)
		want, wantReset := slow.talk(t, text, cuts)
		if gotReset || wantReset {
			// net/http closed it before it had read everything. Then the end
			// of what it sent before is lost, or not.
			resets++
			n := min(len(got), len(want))
			got, want = got[:n], want[:n]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("asked:\n%.3000q\nfast path:\n%s\nnet/http:\n%s", text, excerpt(got, want), excerpt(want, got))
		}
	}
	compareTwins(t, fast, slow)
	s := fast.server.Stats()
	t.Logf("%d requests on %d connections, %d of them on the fast path; %d connections handed over, %d reset",
		g.made, conns, s.Fast, s.HandedOver, resets)
	if int(s.Fast) < requests/2 || int(s.HandedOver) < requests/20 || resets > conns/20 {
		t.Error("too few to have compared anything")
	}
}

// twin is one of two servers.
type twin struct {
	store  *db.DB
	server *Server
	addr   string
}

// twinSizes are sizes of values at which answers begin to differ in their ways.
var twinSizes = []int{1, 1000, sendfileMin - 1, sendfileMin, 100_000}

const twinBlob = 300_000

func newTwin(t *testing.T, slow bool, tokens *Tokens) *twin {
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: twinBlob})
	put(t, store, "k", []byte("hello"), &db.Metadata{
		ModTime: exampleTime, ContentType: "text/x", CacheControl: "no-cache", ContentEncoding: "x-y", ContentDisposition: "inline",
		User: []db.Pair{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}, {Name: "B-C", Value: " x  y\t"}, {Name: "D", Value: ""}},
	})
	put(t, store, "bare", []byte("b"), nil)
	put(t, store, "empty", nil, nil)
	put(t, store, "odd", []byte("o"), &db.Metadata{
		ContentType: "a\r\nX-Evil: 1", ContentDisposition: "\xff", CacheControl: " \t ",
		User: []db.Pair{{Name: "a b", Value: "1"}, {Name: "evil", Value: "5\r\nX-Evil: 6"}, {Name: "lower", Value: "7"}},
	})
	put(t, store, "film", []byte("f"), &db.Metadata{ContentType: " Video/x; a=b", ModTime: exampleTime})
	put(t, store, "text", []byte("f"), &db.Metadata{ContentType: "video/x; a"})
	put(t, store, "a b/-/é?#%", []byte("odd key"), nil)
	put(t, store, "-/x", []byte("odd key"), nil)
	for i, n := range append(twinSizes, twinBlob) {
		put(t, store, fmt.Sprint(n), noise(n, byte(i)), &db.Metadata{ModTime: exampleTime})
	}
	var allowed []string
	if tokens != nil {
		allowed = []string{"http://localhost"}
	}
	s, addr := start(t, store, &Options{MaxBody: 80_000, Tokens: tokens, AllowOrigins: allowed, Log: quiet()}, func(s *Server) {
		s.slow = slow
		s.http.ReadHeaderTimeout = time.Hour // which would end in different ways on a machine that is too busy
		s.handler.now = func() time.Time { return exampleTime }
	})
	return &twin{store, s, addr}
}

func etagOrNone(t *testing.T, store *db.DB, key string) string {
	err := store.View([]byte(key), func([]byte) error { return nil })
	if err != nil {
		return `"none"`
	}
	return etagIn(t, store, key)
}

// talk sends some bytes, cut into pieces, and returns all that comes back, without
// what is never the same, and whether the server has reset the connection.
func (w *twin) talk(t *testing.T, text []byte, cuts []int) (got []byte, reset bool) {
	t.Helper()
	got, reset = sendAll(t, w.addr, text, cuts, 20*time.Microsecond)
	got = boundaries.ReplaceAll(got, []byte("${1}boundary"))
	return dateLines.ReplaceAll(got, []byte("\r\nDate: now")), reset
}

// sendAll sends some bytes, cut into pieces, with pauses between them, and returns
// all that comes back, and whether the server has reset the connection.
func sendAll(t *testing.T, addr string, text []byte, cuts []int, pause time.Duration) (got []byte, reset bool) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		from := 0
		for _, to := range append(slices.Clip(cuts), len(text)) {
			if _, err := c.Write(text[from:to]); err != nil {
				return // the server has had enough
			}
			from = to
			if to < len(text) {
				time.Sleep(pause)
			}
		}
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err = io.ReadAll(c)
	reset = errors.Is(err, syscall.ECONNRESET)
	if err != nil && !reset {
		t.Fatalf("%.3000q: %v", text, err)
	}
	return got, reset
}

var (
	dateLines  = regexp.MustCompile(`\r\nDate: [^\r]*`)
	boundaries = regexp.MustCompile(`(boundary=|--)[A-Z2-7]{26}`)
)

// excerpt is a, around where it begins to be another than b.
func excerpt(a, b []byte) string {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return fmt.Sprintf("%d bytes, here from %d on: %q", len(a), max(n-300, 0), a[max(n-300, 0):min(n+300, len(a))])
}

// compareTwins compares statistics and contents.
func compareTwins(t *testing.T, fast, slow *twin) {
	t.Helper()
	known := func(s Stats) Stats {
		s.Fast, s.HandedOver, s.SendfileCalls, s.SendfilePartial = 0, 0, 0, 0
		return s
	}
	eventually(t, "the same statistics", func() bool { return known(fast.server.Stats()) == known(slow.server.Stats()) })
	a, b := contents(t, fast.store), contents(t, slow.store)
	if len(a) == 0 || a != b {
		t.Errorf("the stores differ:\n%s\n%s", a, b)
	}
}

func contents(t *testing.T, store *db.DB) string {
	t.Helper()
	snap, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	var b strings.Builder
	for key := range snap.All() {
		v, err := store.Value(key)
		if err != nil {
			t.Fatal(err)
		}
		m, err := v.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%q %v %+v\n", key, v.Version(), m)
		v.Close()
	}
	return b.String()
}

// generator makes requests.
type generator struct {
	random  *rand.Rand
	tag     func(key string) string
	tokens  *Tokens // exampleTokens, or none
	hostile []string
	made    int  // requests
	odd     bool // they may be odd
}

// oneIn is true once in so many times.
func (g *generator) oneIn(n int) bool { return g.random.IntN(n) == 0 }

// oddly is too, if it may.
func (g *generator) oddly(n int) bool { return g.odd && g.oneIn(n) }

func pick[T any](g *generator, list []T) T { return list[g.random.IntN(len(list))] }

// connection is what a client sends on one connection: some plain requests, and
// then perhaps others, behind which nothing is on the fast path any more.
func (g *generator) connection() []byte {
	var b bytes.Buffer
	g.odd = false
	for range g.random.IntN(7) {
		g.made++
		g.request(&b)
	}
	g.odd = g.oneIn(2)
	for g.odd && g.oneIn(3) || b.Len() == 0 {
		g.made++
		switch g.random.IntN(4) {
		case 0:
			b.WriteString(pick(g, g.hostile))
		case 1:
			g.mutated(&b)
		default:
			g.request(&b)
		}
	}
	return b.Bytes()
}

// cuts are the offsets at which n bytes are cut. For most connections there are
// none or a few, for some all there can be.
func (g *generator) cuts(n int) (list []int) {
	if g.oneIn(100) && n < 600 {
		for i := 1; i < n; i++ {
			list = append(list, i)
		}
		return list
	}
	for at := 0; n > 0 && g.oneIn(2) && len(list) < 5; {
		if at += 1 + g.random.IntN(n/2+1); at >= n {
			break
		}
		list = append(list, at)
	}
	return list
}

var targets = []string{
	"k", "k", "k", "bare", "empty", "odd", "film", "text", "none", "new", "new", "other", "1", "1000", "16383", "16384", "100000", "300000",
	"%6B", "a%20b/-/%C3%A9%3F%23%25", "%2D/x", "a//b", "../x", "k/", "%00", "%ff", "~!$&'()*+,;=:@",
}

var oddTargets = []string{
	"", "?limit=2", "?limit=x", "-/x", "-/", "k?x=y", "k?", "k#f", "%zz", "%", "%4", "é", "\xff", "a b", "\"<>\\^`{|}", "k\x00", "k\x7f", "/", "//", "-", "-%2F",
}

// request writes a request that is valid, more or less.
func (g *generator) request(b *bytes.Buffer) {
	method := pick(g, []string{"GET", "GET", "GET", "GET", "GET", "HEAD", "PUT", "PUT"})
	if g.oddly(8) {
		method = pick(g, []string{"DELETE", "DELETE", "POST", "OPTIONS", "PATCH", "get", "GETS", "TRACE", "G@T", ""})
	}
	target := pick(g, targets)
	key := target
	if g.oddly(8) {
		target = pick(g, oddTargets)
	}
	target = "/" + target
	if g.oddly(20) {
		target = pick(g, []string{"*", "k", "http://localhost/k", "http://evil.example/k", "HTTP://localhost", "//k", "", "/" + strings.Repeat("x", 9000)})
	}
	version := "HTTP/1.1"
	if g.oddly(15) {
		version = pick(g, []string{"HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/01.1", ""})
	}
	fmt.Fprintf(b, "%s %s %s\r\n", method, target, version)
	g.host(b)
	if g.tokens != nil {
		b.WriteString(g.authorization(method))
	}
	for range g.random.IntN(4) {
		b.WriteString(g.field(key) + "\r\n")
	}
	for range g.random.IntN(3) {
		if method == "PUT" {
			b.WriteString(pick(g, putFields) + "\r\n")
		}
	}
	if method == "PUT" || method == "POST" || g.oddly(20) {
		g.body(b)
		return
	}
	b.WriteString("\r\n")
}

func (g *generator) host(b *bytes.Buffer) {
	host := "Host: " + pick(g, []string{"localhost", "localhost", "localhost:7070", "127.0.0.1", "[::1]:80", "a.localhost"}) + "\r\n"
	if g.oddly(10) {
		host = pick(g, []string{"", host + host, "Host: evil.example\r\n", "Host:\r\n", "Host: a/b\r\n", "Host : localhost\r\n", "Host: localhost, localhost\r\n", "hOST:localhost\r\n"})
	}
	b.WriteString(host)
}

// authorization is a line with a token, which mostly is good enough, or none.
func (g *generator) authorization(method string) string {
	switch n := g.random.IntN(20); {
	case n == 0:
		line := pick(g, slices.Sorted(maps.Keys(authorizations)))
		if line == "" {
			return ""
		}
		return line + "\r\n"
	case n < 10 && reading(method):
		return "Authorization: Bearer " + tokenRO + "\r\n"
	}
	return "Authorization: Bearer " + tokenRW + "\r\n"
}

var plainFields = []string{
	"User-Agent: curl/8.5.0", "Accept: */*", "accept-ENCODING: gzip", "Connection: keep-alive", "Connection: Keep-Alive", "Referer: http://x/",
	"Cache-Control: no-cache", "Content-Type: text/html", "Content-Type: application/pdf", "Content-Disposition: attachment", "Content-Encoding: br",
	"Sec-Fetch-Mode: cors", "If-None-Match: *", "If-Match: *", "Accept:", "Origin: null", "Origin: http://localhost", "Authorization: Basic x",
}

var putFields = []string{"X-Meta-B: 1", "x-meta-a-c:  two  words ", "X-Meta-B:", "x-META-b: 2", "Content-Type: audio/x", "If-None-Match: *"}

var oddFields = []string{
	"Connection: close", "Connection: upgrade", "Connection: keep-alive, close", "Upgrade: h2c", "Expect: 100-continue", "Expect: x", "Pragma: no-cache",
	"Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Transfer-Encoding: identity", "Content-Length: 3", "Content-Length: -1", "Content-Length: 1, 1",
	"Content-Length: ", "Content-Range: bytes 0-0/5", "Trailer: X", "TE: trailers", "X-Unknown: 1", "Cookie: a=b", "X-Meta-: 1",
	"X-Meta-\xff: 1", "X-Meta-A: \xff", "X-Meta-A: é", "X-Meta-A : 1", "Accept\t: 1", ": 1", "no colon", " folded: 1", "\tfolded", "A: b\rc", "A: \x00", "A: \x7f",
	"Accept: a\n", "Accept: b\r", "X-Meta-" + strings.Repeat("x", 100) + ": 1", "Accept: " + strings.Repeat("x", 9000), "Accept: " + strings.Repeat("x", 30_000),
	"Range: bytes=0-1\r\nRange: bytes=2-3", "If-Match: \"a\"\r\nIf-Match: *", "If-None-Match:\r\nif-none-match: *", "Content-Type: a\r\nContent-Type: b", "Host: localhost",
}

// field is a line of a header.
func (g *generator) field(key string) string {
	switch g.random.IntN(5) {
	case 0:
		return "Range: " + pick(g, rangeCases).header
	case 1, 2:
		name := pick(g, slices.Sorted(maps.Keys(conditionCases)))
		return name + ": " + strings.ReplaceAll(pick(g, conditionCases[name]), "TAG", g.tag(key))
	case 3:
		if g.oddly(1) {
			return pick(g, oddFields)
		}
	}
	return pick(g, plainFields)
}

// body writes the end of a header, and a body, whose length may be wrong.
func (g *generator) body(b *bytes.Buffer) {
	n := g.random.IntN(100)
	if g.oneIn(10) {
		n = pick(g, []int{0, 5000, 9000, 20_000, fastBody - 1, fastBody})
	}
	if g.oddly(10) {
		n = pick(g, []int{fastBody + 1, 80_000, 80_001})
	}
	body := noise(n, byte(n))
	length := fmt.Sprint(n)
	what := -1
	if g.oddly(2) {
		what = g.random.IntN(7)
	}
	switch what {
	case 0:
		length = fmt.Sprint(n + 1 + g.random.IntN(100))
	case 1:
		length = fmt.Sprint(max(n-1-g.random.IntN(100), 0))
	case 2:
		length = pick(g, []string{"", "+1", "-1", "0x1", "1 1", "00000000001", "99999999999999999999", "1;", "\t1"})
	case 3:
		fmt.Fprintf(b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n, body)
		return
	case 4:
		fmt.Fprintf(b, "Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n, n, body)
		return
	case 5:
		fmt.Fprintf(b, "Content-Length: %d\r\n", n+1)
	case 6:
		b.WriteString("\r\n")
		return
	}
	fmt.Fprintf(b, "Content-Length: %s\r\n\r\n%s", length, body)
}

// mutated writes a request of which one byte or more is another one, missing or
// there twice.
func (g *generator) mutated(b *bytes.Buffer) {
	var one bytes.Buffer
	g.request(&one)
	p := one.Bytes()
	for range 1 + g.random.IntN(2) {
		i := g.random.IntN(min(len(p), 300))
		switch g.random.IntN(4) {
		case 0:
			p[i] = pick(g, []byte(" \t\r\n:;,/%?#\x00\x7f\xff0aA\"-"))
		case 1:
			p = append(p[:i:i], p[i+1:]...)
		case 2:
			p = append(p[:i+1:i+1], p[i:]...)
		default:
			p = bytes.Replace(p, []byte("\r\n"), []byte(pick(g, []string{"\n", "\r", "\n\r", "\r\r\n", "\r\n\r\n"})), 1)
		}
		if len(p) == 0 {
			break
		}
	}
	b.Write(p)
}

// hostile are requests as attackers of servers behind proxies send them.
var hostile = []string{
	"GET /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /bare HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nX: y\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"GET /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 34\r\n\r\nGET /bare HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"GET /k HTTP/1.1\nHost: localhost\n\nGET /bare HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"GET /k HTTP/1.1\r\nHost: localhost\r\n folded: 1\r\n\r\n",
	"GET /k HTTP/1.1\r\n Host: localhost\r\n\r\n",
	"GET /k HTTP/1.1\r\n\r\n", "GET /k HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
	"GET http://localhost/k HTTP/1.1\r\nHost: evil.example\r\n\r\n", "GET http://evil.example/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"\r\nGET /k HTTP/1.1\r\nHost: localhost\r\n\r\n", "\r\n\r\n\r\n", "\x00\x00\x00\x00", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /k HTTP/0.9\r\n\r\n", "GET /k\r\n\r\n", "GET\r\n", "G", "\n", "\r\n", "\r\n\n", "\x00", "GET ", "GET /k HTTP/1.1\r\nHost: localhost\r\n", "PUT",
	"POST /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc\r\nGET /k HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"GET /k HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"PUT /new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nshort",
}
