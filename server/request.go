package server

import (
	"net/http"
	"strings"

	"github.com/crowfly/crowfly/db"
)

// request is all that the answer to GET, HEAD and PUT of a key depends on,
// whoever has read it: net/http or the fast path.
type request struct {
	method string
	key    []byte

	// Fields of the header, "" if there is none.
	ifMatch, ifNoneMatch, ifRange       string // see listOf
	ifModifiedSince, ifUnmodifiedSince  string
	ranges                              string
	contentType, cacheControl           string
	contentEncoding, contentDisposition string

	user []db.Pair // of a PUT: X-Meta-..., by name, those of one name in the order they came
}

// requestOf takes them from a request that net/http has read.
func requestOf(r *http.Request, key string) request {
	h := r.Header
	q := request{
		method: r.Method, key: []byte(key),
		ifMatch:            listOf(h["If-Match"]),
		ifNoneMatch:        listOf(h["If-None-Match"]),
		ifRange:            listOf(h["If-Range"]),
		ifModifiedSince:    onlyLine(h["If-Modified-Since"]),
		ifUnmodifiedSince:  listOf(h["If-Unmodified-Since"]), // several are no date
		ranges:             onlyLine(h["Range"]),
		contentType:        h.Get("Content-Type"),
		cacheControl:       h.Get("Cache-Control"),
		contentEncoding:    h.Get("Content-Encoding"),
		contentDisposition: h.Get("Content-Disposition"),
	}
	if r.Method == http.MethodPut {
		q.user = userPairs(h)
	}
	return q
}

// listOf is all lines of a field. One that is there but empty is the list without
// an element, which nothing is in: a client that has lost its tag has not asked
// for a write without a condition.
func listOf(lines []string) string {
	list := strings.Join(lines, ",")
	if list == "" && len(lines) > 0 {
		return ","
	}
	return list
}

// onlyLine is a field that has one line. Of several none is of use.
func onlyLine(lines []string) string {
	if len(lines) != 1 {
		return ""
	}
	return lines[0]
}

// reads reports whether the request asks for a value.
func (q *request) reads() bool { return q.method == http.MethodGet || q.method == http.MethodHead }

// conditional reports whether a write has conditions.
func (q *request) conditional() bool {
	return q.ifMatch != "" || q.ifNoneMatch != "" || q.ifUnmodifiedSince != ""
}
