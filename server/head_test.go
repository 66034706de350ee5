package server

import (
	"bufio"
	"bytes"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// headCases are beginnings of connections, in which a line ends with CR LF, and
// LF stands for that alone.
var headCases = []struct {
	name string
	head string
	kind headKind
}{
	{"get", "GET /k HTTP/1.1\nHost: localhost\n\n", plain},
	{"head", "HEAD /a/b//c HTTP/1.1\nHost: localhost:7070\n\n", plain},
	{"like curl", "GET /k HTTP/1.1\nHost: [::1]:7070\nUser-Agent: curl/8.5.0\nAccept: */*\n\n", plain},
	{"like a browser", "GET /k HTTP/1.1\nHost: localhost\nConnection: keep-alive\nsec-ch-ua: \"x\";v=\"1\"\nSec-Fetch-Mode: cors\n" +
		"Accept-Encoding: gzip\nAccept-Language: de\nReferer: http://localhost/\nUpgrade-Insecure-Requests: 1\n\n", plain},
	{"conditions", "GET /k HTTP/1.1\nhost: a\nRANGE: bytes=1-2\nIf-None-Match: \"x\"\nif-match:*\nIf-Range: \t y \t\nIf-Modified-Since: x\n" +
		"If-Unmodified-Since: z\n\n", plain},
	{"encoded", "GET /%2D/a%20b%2f%FF HTTP/1.1\nHost: a\n\n", plain},
	{"put", "PUT /k HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Type: a/b\nX-META-b-c: 2\nx-meta-A: 1\nx-meta-a:\nX-Meta-: 0\n\n", plain},
	{"token", "GET /k HTTP/1.1\nHost: a\naUthorization: \tBearer x \n\n", plain},
	{"put nothing", "PUT /k HTTP/1.1\nHost: a\nContent-Length: 0\n\n", plain},
	{"get with the length of no body", "GET /k HTTP/1.1\nHost: a\nContent-Length: 0\n\n", plain},
	{"all of RFC 3986", "GET /-._~!$&'()*+,;=:@/ HTTP/1.1\nHost: a\n\n", plain},

	{"nothing", "", incomplete},
	{"a part of a line", "GET /k HT", incomplete},
	{"a part of a header", "GET /k HTTP/1.1\nHost: a\n", incomplete},
	{"rubbish without an end", "\x16\x03\x01\x00", incomplete},

	{"another method", "POST /k HTTP/1.1\n", doubtful},
	{"lower case", "get /k HTTP/1.1\n", doubtful},
	{"another version", "GET /k HTTP/1.0\n", doubtful},
	{"no version", "GET /k\n", doubtful},
	{"two spaces", "GET  /k HTTP/1.1\n", doubtful},
	{"two spaces behind", "GET /k  HTTP/1.1\n", doubtful},
	{"a space in the path", "GET /k k HTTP/1.1\n", doubtful},
	{"a tab", "GET\t/k HTTP/1.1\n", doubtful},
	{"absolute", "GET http://a/k HTTP/1.1\n", doubtful},
	{"no path", "GET * HTTP/1.1\n", doubtful},
	{"listing", "GET / HTTP/1.1\n", doubtful},
	{"reserved", "GET /-/k HTTP/1.1\n", doubtful},
	{"query", "GET /k?a HTTP/1.1\n", doubtful},
	{"fragment", "GET /k#a HTTP/1.1\n", doubtful},
	{"half an escape", "GET /k%2 HTTP/1.1\n", doubtful},
	{"no escape", "GET /k%2g HTTP/1.1\n", doubtful},
	{"UTF-8", "GET /é HTTP/1.1\n", doubtful},
	{"empty line first", "\nGET /k HTTP/1.1\n", doubtful},
	{"bare LF", "GET /k HTTP/1.1LFHost: a\n\n", doubtful},
	{"bare LF later", "GET /k HTTP/1.1\nHost: aLFAccept: b\n\n", doubtful},
	{"bare LF at the end", "GET /k HTTP/1.1\nHost: a\nLF", doubtful},
	{"no host", "GET /k HTTP/1.1\n\n", doubtful},
	{"two hosts", "GET /k HTTP/1.1\nHost: a\nHost: a\n", doubtful},
	{"empty host", "GET /k HTTP/1.1\nHost:\n", doubtful},
	{"odd host", "GET /k HTTP/1.1\nHost: a/b\n", doubtful},
	{"space before the colon", "GET /k HTTP/1.1\nHost : a\n", doubtful},
	{"no name", "GET /k HTTP/1.1\n: a\n", doubtful},
	{"no colon", "GET /k HTTP/1.1\nHost\n", doubtful},
	{"folded", "GET /k HTTP/1.1\nHost: a\n Accept: b\n", doubtful},
	{"folded with a tab", "GET /k HTTP/1.1\nHost: a\n\tb\n", doubtful},
	{"NUL", "GET /k HTTP/1.1\nHost: a\nAccept: \x00\n", doubtful},
	{"CR", "GET /k HTTP/1.1\nHost: a\nAccept: a\rb\n", doubtful},
	{"beyond ASCII", "GET /k HTTP/1.1\nHost: a\nAccept: \xff\n", doubtful},
	{"close", "GET /k HTTP/1.1\nConnection: close\n", doubtful},
	{"upgrade", "GET /k HTTP/1.1\nConnection: keep-alive, Upgrade\n", doubtful},
	{"unknown", "GET /k HTTP/1.1\nX-Unknown: 1\n", doubtful},
	{"pragma", "PUT /k HTTP/1.1\nPragma: no-cache\n", doubtful},
	{"expect", "PUT /k HTTP/1.1\nExpect: 100-continue\n", doubtful},
	{"chunked", "PUT /k HTTP/1.1\nTransfer-Encoding: chunked\n", doubtful},
	{"chunked get", "GET /k HTTP/1.1\nContent-Length: 0\nTransfer-Encoding: chunked\n", doubtful},
	{"two lengths", "PUT /k HTTP/1.1\nContent-Length: 5\nContent-Length: 5\n", doubtful},
	{"two lengths in one", "PUT /k HTTP/1.1\nContent-Length: 5, 5\n", doubtful},
	{"signed length", "PUT /k HTTP/1.1\nContent-Length: +5\n", doubtful},
	{"empty length", "PUT /k HTTP/1.1\nContent-Length:\n", doubtful},
	{"long length", "PUT /k HTTP/1.1\nContent-Length: 0000000005\n", doubtful},
	{"put without a length", "PUT /k HTTP/1.1\nHost: a\n\n", doubtful},
	{"get with a body", "GET /k HTTP/1.1\nHost: a\nContent-Length: 5\n\n", doubtful},
	{"get with metadata", "GET /k HTTP/1.1\nHost: a\nX-Meta-A: 5\n\n", doubtful},
	{"two ranges", "GET /k HTTP/1.1\nRange: bytes=1-2\nRange: bytes=1-2\n", doubtful},
	{"a condition without a value", "PUT /k HTTP/1.1\nHost: a\nIf-Match: \n", doubtful},
	{"two tokens", "GET /k HTTP/1.1\nAuthorization: Bearer x\nAuthorization: Bearer x\n", doubtful},
	{"two conditions", "GET /k HTTP/1.1\nIf-Match:\nif-match: a\n", doubtful},
}

func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", "\r\n"), "LF", "\n")
}

// TestHead: what is plain, and what is not, wherever the bytes are cut. That
// net/http sees the same in what is plain is checked by checkHead.
func TestHead(t *testing.T) {
	for _, c := range headCases {
		t.Run(c.name, func(t *testing.T) {
			var h head
			if kind := h.parse([]byte(crlf(c.head))); kind != c.kind {
				t.Errorf("kind %d, want %d", kind, c.kind)
			}
			checkHead(t, []byte(crlf(c.head)))
			if c.kind == plain {
				checkHead(t, []byte(c.head)) // bare LF: net/http takes it
				if kind := h.parse([]byte(c.head)); kind != doubtful {
					t.Errorf("without CR: kind %d", kind)
				}
			}
		})
	}
}

// TestSameFields: a head is understood in the same way whatever came before it on
// the connection. Method: all pairs of heads, and each twice with another first
// line.
func TestSameFields(t *testing.T) {
	for _, first := range headCases {
		for _, second := range headCases {
			a, b := []byte(crlf(first.head)), []byte(crlf(second.head))
			line, _, _ := strings.Cut(string(b), "\r\n")
			_, fields, _ := strings.Cut(string(a), "\r\n")
			checkAfter(t, a, b)
			checkAfter(t, a, []byte(line+"\r\n"+fields))
			checkAfter(t, a, []byte(line+"\r\n"+fields+"behind"))
			checkAfter(t, a, []byte("GET /other HTTP/1.1\r\n"+fields[:len(fields)/2]))
		}
	}
}

// checkAfter compares what a parser makes of p after other bytes, which lie where
// p lies then, with what it makes of p alone.
func checkAfter(t *testing.T, before, p []byte) {
	t.Helper()
	var used, fresh head
	buffer := append(make([]byte, 0, len(before)+len(p)), before...)
	used.parse(buffer)
	got := used.parse(append(buffer[:0], p...))
	if want := fresh.parse(p); got != want {
		t.Fatalf("%q after %q: kind %d, want %d", p, before, got, want)
	}
	used.decoded, fresh.decoded = nil, nil
	used.fields, fresh.fields = nil, nil
	if got == plain && !reflect.DeepEqual(used, fresh) {
		t.Fatalf("%q after %q: %+v, want %+v", p, before, used, fresh)
	}
}

// FuzzHead: net/http takes every head that the fast path takes, and understands
// it in the same way.
func FuzzHead(f *testing.F) {
	for _, c := range headCases {
		f.Add([]byte(crlf(c.head)))
	}
	f.Fuzz(checkHead)
}

// checkHead compares with net/http what the parser makes of some bytes, and what
// it makes of the same bytes cut off, and with others behind them.
func checkHead(t *testing.T, p []byte) {
	var h, other head
	kind := h.parse(p)
	behind := append(bytes.Clone(p), "\r\n\x00 \n:"...)
	switch kind {
	case incomplete:
		return
	case doubtful:
		if other.parse(behind) != doubtful {
			t.Fatalf("%q: no doubt with more behind it", p)
		}
		return
	}
	for cut := range h.size {
		if got := other.parse(p[:cut]); got != incomplete {
			t.Fatalf("%q: the first %d bytes are of kind %d", p, cut, got)
		}
	}
	if other.parse(behind) != plain || !reflect.DeepEqual(h, other) {
		t.Fatalf("%q: with more behind it: %+v, alone %+v", p, other, h)
	}
	compareHead(t, &h, p[:h.size])
}

// harmless are the fields that may be in a plain head.
var harmless = regexp.MustCompile(`^(User-Agent|Accept|Accept-.*|Referer|Origin|Dnt|Priority|Upgrade-Insecure-Requests|Authorization|` +
	`Sec-Fetch-.*|Sec-Ch-.*|Connection|Host|Content-Length|Range|If-(None-)?Match|If-(Un)?[Mm]odified-Since|If-Range|` +
	`Content-(Type|Encoding|Disposition)|Cache-Control|X-Meta-.*)$`)

func compareHead(t *testing.T, h *head, p []byte) {
	in := bufio.NewReaderSize(bytes.NewReader(p), len(p)+100)
	r, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("%q: %v", p, err)
	}
	if in.Buffered() != 0 {
		t.Fatalf("%q: ends %d bytes late", p, in.Buffered())
	}
	key, kind := splitPath(r.URL)
	if want := requestOf(r, key); kind != keyPath || key == "" || r.URL.RawQuery != "" || !reflect.DeepEqual(h.request, want) {
		t.Fatalf("%q: %+v, net/http %+v", p, h.request, want)
	}
	if r.Host != string(h.host) || r.Proto != "HTTP/1.1" || r.Close || len(r.TransferEncoding) > 0 || len(r.Trailer) > 0 {
		t.Fatalf("%q: net/http has %+v", p, r)
	}
	if r.ContentLength != max(h.length, 0) || h.method != "PUT" && r.ContentLength != 0 {
		t.Fatalf("%q: length %d, net/http %d", p, h.length, r.ContentLength)
	}
	if got := r.Header.Get("Authorization"); got != string(h.authorization) {
		t.Fatalf("%q: authorization %q, net/http %q", p, h.authorization, got)
	}
	for name, values := range r.Header {
		if !harmless.MatchString(name) || len(values) > 1 && !repeatable(name) {
			t.Fatalf("%q: %s: %q is not for the fast path", p, name, values)
		}
		if name == "Connection" && !strings.EqualFold(strings.Join(values, ""), strings.Repeat("keep-alive", len(values))) {
			t.Fatalf("%q: %s: %q", p, name, values)
		}
	}
}

// repeatable reports whether a field means nothing, or may be there twice.
func repeatable(name string) bool {
	return !strings.HasPrefix(name, "If-") && !strings.HasPrefix(name, "Content-") &&
		name != "Range" && name != "Cache-Control" && name != "Authorization"
}
