package server

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// framingCases are what framing takes, and what it refuses, and at which byte:
// there stands a |. A line ends with CR LF, and LF stands for that alone.
var framingCases = map[string]string{
	"get":          "GET /k HTTP/1.1\nHost: a\n\nGET /k HTTP/1.1\n",
	"length":       "PUT /k HTTP/1.1\nContent-Length: 5\n\nLF LF\nGET /k HTTP/1.1\n",
	"length twice": "PUT /k HTTP/1.1\nContent-Length: 5\ncontent-length:5 \n\nLF LF\nGET /k HTTP/1.1\n",
	"chunked":      "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n5;x=LF|",
	"chunks":       "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n3\nLF LF\n0A;x \t\n0123456789\n000\nX: y\n\nGET /k HTTP/1.1\n",
	"rubbish":      "\x00\n\x01\n\n",
	"TLS":          "\x16\x03LFLFLFTransfer-Encoding: x\nContent-Length: 5\n",
	"empty lines":  "\n\nGET /k HTTP/1.1\n",
	"1.0":          "PUT /k HTTP/1.0\nContent-Length: 5\n\nLF LF\nGET /k HTTP/1.0\n",
	"in turn": "PUT /k HTTP/1.0\nContent-Length: 1\n\nxPUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n" +
		"PUT /k HTTP/1.1\nContent-Length: 1\n\nxPUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n0\n\nGET /k HTTP/1.0\n\nGET /LF|",
	"both":             "PUT /k HTTP/1.1\nContent-Length: 5\nX: y\ntransfer-encoding: x\n|",
	"both, other way":  "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length:\n|",
	"coded 1.0":        "PUT /k HTTP/1.0\nTRANSFER-ENCODING: chunked\n|",
	"second of two":    "GET /k HTTP/1.1\n\nPUT /k HTTP/1.1\nContent-Length: 5\nTransfer-Encoding: x\n|",
	"behind a body":    "PUT /k HTTP/1.1\nContent-Length: 1\n\nxPUT /k HTTP/1.0\nTransfer-Encoding: x\n|",
	"behind chunks":    "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n1\nx\n0\n\nPUT /k HTTP/1.0\nTransfer-Encoding: x\n|",
	"folded":           "GET /k HTTP/1.1\nA: b\n c\n|",
	"folded with tab":  "GET /k HTTP/1.1\nA: b\n\tc\n|",
	"LF":               "GET /k HTTP/1.1LF|xx",
	"LF of few bytes":  "GLF|xxyy",
	"LF in a header":   "GET /k HTTP/1.1\nA: bLF|xx",
	"LF at the end":    "GET /k HTTP/1.1\nA: b\nLF|xx",
	"CR in a line":     "GET /k\rHTTP/1.1\n|",
	"CR in a header":   "GET /k HTTP/1.1\nA: b\rC: d\n|",
	"CR CR LF":         "GET /k HTTP/1.1\n\r\n|",
	"CR in an empty":   "\n\r\n|",
	"LF in a trailer":  "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n0\nA: bLF|",
	"no size":          "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n\n|",
	"negative size":    "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n-1\n|",
	"size beyond":      "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n10000000000000000\n|",
	"size just beyond": "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n7ffffffffffffffe\n|",
	"largest size":     "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n7ffffffffffffffd\nLF",
}

// TestFraming: however the bytes come, they go through unchanged up to where they
// are refused, and there a NUL and no more than is needed.
func TestFraming(t *testing.T) {
	for name, text := range framingCases {
		good, behind, refused := strings.Cut(crlf(text), "|")
		want := good
		if refused {
			want = good[:len(good)-1] + "\x00"
			want += strings.Repeat("\x00", min(len(behind), max(begin-len(good), 0)))
		}
		in := good + behind
		for _, size := range []int{1, 2, 3, 7, len(in)} {
			if got := string(through([]byte(in), size)); got != want {
				t.Errorf("%s, %d at a time: %q, want %q", name, size, got, want)
			}
		}
	}
}

// through is what comes of some bytes that come in pieces.
func through(p []byte, size int) (all []byte) {
	var f framing
	for len(p) > 0 && !f.over() {
		n := min(size, len(p))
		all = append(all, f.follow(bytes.Clone(p[:n]))...)
		p = p[n:]
	}
	return all
}

// FuzzFraming: whatever comes, framing sees requests begin where net/http does,
// and net/http is never shown one that may be divided up in two ways.
func FuzzFraming(f *testing.F) {
	for _, text := range framingCases {
		f.Add([]byte(crlf(strings.ReplaceAll(text, "|", ""))))
	}
	for _, c := range headCases {
		f.Add([]byte(crlf(c.head)))
	}
	for _, text := range hostile {
		f.Add([]byte(text))
	}
	for _, cases := range hostileCases {
		for _, c := range cases {
			f.Add([]byte(crlf(c.text) + lastRequest))
		}
	}
	f.Fuzz(checkFraming)
}

var (
	ambiguous = regexp.MustCompile(`(?i)\r\ncontent-length:(?s:.*)\r\ntransfer-encoding:|\r\ntransfer-encoding:(?s:.*)\r\ncontent-length:|^[^\r]* HTTP/1\.0\r\n(?s:.*\r\n)?transfer-encoding:`)
	looseLine = regexp.MustCompile(`(?:^|[^\r])\n|\r(?:[^\n]|$)|\r\n[ \t]`)
)

func checkFraming(t *testing.T, p []byte) {
	out := through(p, len(p))
	for _, size := range []int{1, 5} {
		if got := through(p, size); !bytes.Equal(got, out) {
			t.Fatalf("%q: %q, %d at a time %q", p, out, size, got)
		}
	}
	if len(p) > 0 && p[0] == tlsHandshake {
		return
	}
	in := bytes.NewReader(out)
	r := bufio.NewReaderSize(in, len(out)+16)
	at := func() int { return len(out) - in.Len() - r.Buffered() }
	for begins := 0; ; begins = at() {
		request, err := http.ReadRequest(r)
		if err != nil || request.ProtoMajor != 1 {
			return // and the connection ends
		}
		var f framing
		f.follow(bytes.Clone(out[:begins]))
		if f.state != inRequestLine || len(f.line) > 0 {
			t.Fatalf("%q: net/http sees a request at byte %d, framing is in state %d", out, begins, f.state)
		}
		if head := out[begins:at()]; ambiguous.Match(head) || looseLine.Match(head) {
			t.Fatalf("%q gets to net/http", head)
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		skipAsServer(r, request.Method)
	}
}

// skipAsServer skips what a server of net/http does behind a POST.
func skipAsServer(r *bufio.Reader, method string) {
	if method != http.MethodPost {
		return
	}
	next, _ := r.Peek(begin)
	for len(next) > 0 && (next[0] == '\r' || next[0] == '\n') {
		r.Discard(1)
		next = next[1:]
	}
}

// TestFramingAllocs: nothing of a body costs an allocation, nor do requests on a
// connection that has had one. The body is all LF, which no line may have alone.
func TestFramingAllocs(t *testing.T) {
	head := []byte(crlf("PUT /k HTTP/1.1\nHost: localhost\nContent-Length: 1000000\n\n"))
	chunks := []byte(crlf("PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n\n3;x=y\nabc\n1f\n0123456789012345678901234567890\n0\n\n"))
	body := bytes.Repeat([]byte("\n"), 10_000)
	var f framing
	for what, read := range map[string]func(){
		"a body": func() {
			f.follow(head)
			for range 100 {
				f.follow(body)
			}
		},
		"chunks": func() { f.follow(chunks) },
		"lines in pieces": func() {
			f.follow(chunks[:10])
			f.follow(chunks[10:60])
			f.follow(chunks[60:])
		},
	} {
		f = framing{line: make([]byte, 0, 100)}
		if n := testing.AllocsPerRun(100, read); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
		if f.state != inRequestLine {
			t.Errorf("%s: state %d at the end", what, f.state)
		}
	}
}

// TestNotFramed: where nobody follows the framing, which is under TLS and in a
// server that is not ours, a connection ends with a request that may have been
// ambiguous, and with no other.
func TestNotFramed(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	foreign := httptest.NewServer(NewHandler(store, nil))
	defer foreign.Close()
	_, encrypted, config := startTLS(t, store, Options{Log: failOnError(t)})
	for text, closes := range map[string]bool{
		puts + chunked + "\n1\nx\n0\n\n":                                           true,
		puts + chunked + sized + "\n1\nx\n0\n\n":                                   true,
		"PUT /new" + h0 + "Connection: keep-alive\n" + chunked + sized + "\nhello": true,
		puts + sized + "\nhello":                                                   false,
		get + "\n":                                                                 false,
	} {
		plain := dial(t, foreign.Listener.Addr().String())
		secret, _ := dialTLS(t, encrypted, config)
		for name, c := range map[string]net.Conn{"foreign": plain, "TLS": secret} {
			if _, err := io.WriteString(c, crlf(text)); err != nil {
				t.Fatal(err)
			}
			got, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || got.Close != closes || got.StatusCode >= 300 {
				t.Errorf("%s, %q: %+v, %v; want closes %v", name, text, got, err, closes)
			}
		}
	}
}

// BenchmarkFraming is the cost of a read of 32 KiB of a body, and of a request.
func BenchmarkFraming(b *testing.B) {
	b.Run("body", func(b *testing.B) {
		f := framing{begun: true, state: inBody, left: 1 << 62}
		p := make([]byte, 32<<10)
		for b.Loop() {
			f.follow(p)
		}
	})
	b.Run("request", func(b *testing.B) {
		var f framing
		p := []byte(firstRequest)
		for b.Loop() {
			f.follow(p)
		}
	})
}
