package server

import (
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/crowfly/crowfly/db"
)

const (
	// userPrefix begins the headers that a client makes up.
	userPrefix = "X-Meta-"

	// maxStoredHeaders is well below what the metadata of a record can hold.
	maxStoredHeaders = 32 << 10

	// pairOverhead is what a pair takes there besides its text.
	pairOverhead = 4

	// defaultType is the type of a value of which none is known.
	defaultType = "application/octet-stream"
)

// requestMetadata takes what a PUT says about its value from the header.
func (x *exchange) requestMetadata() (m db.Metadata, ok bool) {
	h := x.r.Header
	if len(h["Content-Range"]) > 0 {
		x.problem(http.StatusBadRequest, "a part of a value can't be written: Content-Range is for responses")
		return m, false
	}
	m = db.Metadata{
		ModTime:            time.Now(),
		ContentType:        h.Get("Content-Type"),
		CacheControl:       h.Get("Cache-Control"),
		ContentEncoding:    h.Get("Content-Encoding"),
		ContentDisposition: h.Get("Content-Disposition"),
		User:               userPairs(h),
	}
	total := 0
	texts := []string{m.ContentType, m.CacheControl, m.ContentEncoding, m.ContentDisposition}
	for _, p := range m.User {
		texts = append(texts, p.Value)
		total += len(p.Name) + pairOverhead
	}
	for _, text := range texts {
		total += len(text)
		if !visible(text) {
			x.problem(http.StatusBadRequest, "a header that is stored with the value has bytes other than visible ASCII")
			return m, false
		}
	}
	if total > maxStoredHeaders {
		x.problem(http.StatusRequestHeaderFieldsTooLarge, "the headers that are stored with the value are too long")
		return m, false
	}
	return m, true
}

// userPairs are the headers X-Meta-..., by name, and those of one name in the
// order they came.
func userPairs(h http.Header) (list []db.Pair) {
	for _, header := range slices.Sorted(maps.Keys(h)) {
		name, ok := strings.CutPrefix(header, userPrefix)
		if !ok || name == "" {
			continue
		}
		for _, value := range h[header] {
			list = append(list, db.Pair{Name: name, Value: value})
		}
	}
	return list
}

// setDescription sets what describes the bytes to come.
func (x *exchange) setDescription(m *db.Metadata) {
	h := x.w.Header()
	h.Set("Content-Type", defaultType)
	x.setText("Content-Type", m.ContentType)
	x.setText("Content-Encoding", m.ContentEncoding)
	x.setText("Content-Disposition", m.ContentDisposition)
	if !shownByViewer(h.Get("Content-Type")) {
		// A page that somebody has stored must not run scripts that can
		// ask for everything else in the store.
		h.Set("Content-Security-Policy", "sandbox")
	}
	for _, p := range m.User {
		if token(p.Name) && visible(p.Value) {
			h.Add(userPrefix+p.Name, p.Value)
		}
	}
}

// shownByViewer reports whether browsers show values of a type with a program
// of their own, which do not start, or can't ask for the value, in a sandbox.
// Nothing in such a value runs as part of the site it is from.
func shownByViewer(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil &&
		(t == "application/pdf" || strings.HasPrefix(t, "video/") || strings.HasPrefix(t, "audio/"))
}

// setText sets a header from metadata, which need not have come over HTTP.
func (x *exchange) setText(name, value string) {
	if value != "" && visible(value) {
		x.w.Header().Set(name, value)
	}
}

// visible reports whether a header value is visible ASCII with blanks, which
// is all that means the same to everyone who passes it on.
func visible(s string) bool {
	for i := range len(s) {
		if (s[i] < ' ' && s[i] != '\t') || s[i] > '~' {
			return false
		}
	}
	return true
}

// token reports whether a header name, or a part of one, has only bytes that
// RFC 9110 allows in it.
func token(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !unreserved(c) && strings.IndexByte("!#$%&'*+^`|", c) < 0 {
			return false
		}
	}
	return s != ""
}
