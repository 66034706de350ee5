package server

import (
	"bytes"
	"cmp"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/crowfly/crowfly/db"
)

// maxHead is how long the head of a request may be on the fast path.
const maxHead = 8 << 10

// head is the head of a plain request: one of which every byte is understood,
// and nothing is asked that the fast path does not do. All others are left to
// net/http, whatever may be wrong with them.
type head struct {
	request
	host   []byte
	length int64 // of the body; -1 if there is no Content-Length
	size   int   // of the head itself

	authorization []byte // nil if there is none
	origin        []byte

	seen    fieldSet
	decoded []byte // room for a key
	fields  []byte // the lines behind the first one, to be known again
}

// fieldSet is a set of header fields of which a head may have one only.
type fieldSet uint16

const (
	seenHost fieldSet = 1 << iota
	seenAuthorization
	seenLength
	seenRange
	seenIfMatch
	seenIfNoneMatch
	seenIfModified
	seenIfUnmodified
	seenIfRange
	seenContentType
	seenCacheControl
	seenEncoding
	seenDisposition
	seenOrigin
)

// headKind is what the bytes of a connection turn out to be.
type headKind int

const (
	incomplete headKind = iota // more of them are needed
	plain                      // they begin with a head
	doubtful                   // they are for net/http
)

// parse reads the head that p begins with. It looks at no byte behind it, and
// says the same however p was cut into pieces on its way. What it finds lies in
// p in part, and in h.
//
// A client asks again and again with the same fields. They are read once.
func (h *head) parse(p []byte) headKind {
	line, n, kind := nextLine(p)
	if kind != plain {
		return kind
	}
	if len(h.fields) > 0 && bytes.HasPrefix(p[n:], h.fields) {
		h.size = n + len(h.fields)
		if !h.requestLine(line) {
			return doubtful
		}
		return h.finish()
	}
	*h = head{length: -1, size: n, decoded: h.decoded, fields: h.fields[:0]}
	if !h.requestLine(line) {
		return doubtful
	}
	if kind = h.readFields(p); kind == plain {
		h.remember(p[n:h.size])
	}
	return kind
}

// readFields reads the lines behind the first one.
func (h *head) readFields(p []byte) headKind {
	for {
		line, n, kind := nextLine(p[h.size:])
		if kind != plain {
			return kind
		}
		h.size += n
		if len(line) == 0 {
			return h.finish()
		}
		if !h.field(line) {
			return doubtful
		}
	}
}

// maxFields is how many bytes of fields are kept to be known again.
const maxFields = 1 << 10

// remember keeps fields that are read, unless they are many, or of a PUT, which
// says something else each time.
func (h *head) remember(fields []byte) {
	if len(fields) > maxFields || h.method == http.MethodPut {
		return
	}
	h.fields = append(h.fields, fields...)
	h.host = within(h.fields, h.host)
	if h.authorization != nil {
		h.authorization = within(h.fields, h.authorization)
	}
	if h.origin != nil {
		h.origin = within(h.fields, h.origin)
	}
}

// within is where some bytes are in p, which has them.
func within(p, part []byte) []byte {
	i := bytes.Index(p, part)
	return p[i : i+len(part)]
}

// nextLine returns the line that p begins with, and its length with the end,
// which has to be CR LF.
func nextLine(p []byte) (line []byte, n int, kind headKind) {
	n = bytes.IndexByte(p, '\n') + 1
	switch {
	case n == 0:
		return nil, 0, incomplete
	case n == 1 || p[n-2] != '\r':
		return nil, 0, doubtful
	}
	return p[:n-2], n, plain
}

// finish judges the head as a whole.
func (h *head) finish() headKind {
	put := h.method == http.MethodPut
	if h.seen&seenHost == 0 || put && h.length < 0 || !put && h.length > 0 || !put && len(h.user) > 0 {
		return doubtful
	}
	if len(h.user) > 1 {
		slices.SortStableFunc(h.user, func(a, b db.Pair) int { return cmp.Compare(a.Name, b.Name) })
	}
	return plain
}

// requestLine reads a line such as "GET /key HTTP/1.1".
func (h *head) requestLine(line []byte) bool {
	target, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok {
		return false
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut} {
		if len(target) > len(method) && string(target[:len(method)]) == method && target[len(method)] == ' ' {
			h.method = method
			return h.target(target[len(method)+1:])
		}
	}
	return false
}

// target takes the key out of a path, as splitPath does. The listing and what
// belongs to the server are for net/http, as is anything with a query.
func (h *head) target(path []byte) bool {
	if len(path) < 2 || path[0] != '/' || bytes.HasPrefix(path, []byte(reserved)) {
		return false
	}
	key := path[1:]
	encoded := false
	for _, c := range key {
		if class[c]&inPath == 0 {
			return false
		}
		encoded = encoded || c == '%'
	}
	if encoded {
		return h.decode(key)
	}
	h.key = key
	return true
}

// decode decodes a key.
func (h *head) decode(key []byte) bool {
	h.decoded = h.decoded[:0]
	for i := 0; i < len(key); i++ {
		c := key[i]
		if c == '%' {
			if i+2 >= len(key) || class[key[i+1]]&hexDigit == 0 || class[key[i+2]]&hexDigit == 0 {
				return false
			}
			c = unhex(key[i+1])<<4 | unhex(key[i+2])
			i += 2
		}
		h.decoded = append(h.decoded, c)
	}
	h.key = h.decoded
	return true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// maxFieldName is the length of the longest name that is looked at.
const maxFieldName = 64

// field reads a line of the header: a name, a colon and a value.
func (h *head) field(line []byte) bool {
	n := bytes.IndexByte(line, ':')
	if n <= 0 || n > maxFieldName {
		return false
	}
	name, value := line[:n], bytes.Trim(line[n+1:], " \t")
	var lower [maxFieldName]byte
	for i, c := range name {
		if class[c]&inToken == 0 {
			return false
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	for _, c := range value {
		if class[c]&inValue == 0 {
			return false
		}
	}
	return h.known(lower[:n], name, value)
}

// known takes a field for what it is, and reports whether it is one that the
// fast path knows and net/http does nothing about by itself.
func (h *head) known(lower, name, value []byte) bool {
	switch string(lower) {
	case "user-agent", "accept", "referer", "dnt", "priority", "upgrade-insecure-requests":
		return true
	case "origin":
		h.origin = value
		return h.once(seenOrigin)
	case "connection":
		return strings.EqualFold(string(value), "keep-alive")
	case "host":
		h.host = value
		return h.once(seenHost) && len(value) > 0 && validHost(value)
	case "authorization":
		h.authorization = value
		return h.once(seenAuthorization)
	case "content-length":
		return h.once(seenLength) && h.contentLength(value)
	case "range":
		return h.take(seenRange, &h.ranges, value)
	case "if-match":
		return h.take(seenIfMatch, &h.ifMatch, value)
	case "if-none-match":
		return h.take(seenIfNoneMatch, &h.ifNoneMatch, value)
	case "if-modified-since":
		return h.take(seenIfModified, &h.ifModifiedSince, value)
	case "if-unmodified-since":
		return h.take(seenIfUnmodified, &h.ifUnmodifiedSince, value)
	case "if-range":
		return h.take(seenIfRange, &h.ifRange, value)
	case "content-type":
		return h.take(seenContentType, &h.contentType, value)
	case "cache-control":
		return h.take(seenCacheControl, &h.cacheControl, value)
	case "content-encoding":
		return h.take(seenEncoding, &h.contentEncoding, value)
	case "content-disposition":
		return h.take(seenDisposition, &h.contentDisposition, value)
	}
	return h.family(lower, name, value)
}

// family is known for the fields whose names only begin in a known way.
func (h *head) family(lower, name, value []byte) bool {
	for _, prefix := range []string{"accept-", "sec-fetch-", "sec-ch-"} {
		if bytes.HasPrefix(lower, []byte(prefix)) {
			return true
		}
	}
	if !bytes.HasPrefix(lower, []byte("x-meta-")) {
		return false
	}
	own := textproto.CanonicalMIMEHeaderKey(string(name))[len(userPrefix):]
	if own != "" {
		h.user = append(h.user, db.Pair{Name: own, Value: string(value)})
	}
	return true
}

// take stores a field that there may be one of, which has to have a value.
func (h *head) take(field fieldSet, where *string, value []byte) bool {
	if len(value) == 0 || !h.once(field) {
		return false
	}
	*where = string(value)
	return true
}

// once reports whether a field has not been there yet.
func (h *head) once(field fieldSet) bool {
	was := h.seen
	h.seen |= field
	return was&field == 0
}

// contentLength reads a length of up to nine digits.
func (h *head) contentLength(value []byte) bool {
	if len(value) == 0 || len(value) > 9 {
		return false
	}
	h.length = 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
		h.length = 10*h.length + int64(c-'0')
	}
	return true
}

// What a byte may be a part of.
const (
	inPath = 1 << iota
	inToken
	inValue
	inName    // of a host
	inAddress // of version 6
	hexDigit
)

var class = func() (t [256]byte) {
	set := func(bit byte, chars string) {
		for i := range len(chars) {
			t[chars[i]] |= bit
		}
	}
	const alphanumeric = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	set(inPath, alphanumeric+"-._~!$&'()*+,;=:@/%")
	set(inToken, alphanumeric+"!#$%&'*+-.^_`|~")
	set(inName, alphanumeric+"-._~!$&'()*+,;=%")
	set(hexDigit, "0123456789abcdefABCDEF")
	set(inAddress, "0123456789abcdefABCDEF:.")
	set(inValue, "\t")
	for c := ' '; c <= '~'; c++ {
		t[c] |= inValue
	}
	return t
}()
