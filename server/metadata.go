package server

import (
	"cmp"
	"maps"
	"mime"
	"net/http"
	"net/textproto"
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

// metadata is what a PUT says about its value, which comes now, or why that
// can't be stored.
func (q *request) metadata(now time.Time) (m db.Metadata, bad *refusal) {
	m = db.Metadata{
		ModTime:            now,
		ContentType:        cmp.Or(q.contentType, ContentType(string(q.key))),
		CacheControl:       q.cacheControl,
		ContentEncoding:    q.contentEncoding,
		ContentDisposition: q.contentDisposition,
		User:               q.user,
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
			return m, &refusal{http.StatusBadRequest, "a header that is stored with the value has bytes other than visible ASCII"}
		}
	}
	if total > maxStoredHeaders {
		return m, &refusal{http.StatusRequestHeaderFieldsTooLarge, "the headers that are stored with the value are too long"}
	}
	return m, nil
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

// typeOf is the Content-Type of a value. Its metadata need not have come over
// HTTP.
func typeOf(m *db.Metadata) string {
	if m.ContentType == "" || !visible(m.ContentType) {
		return defaultType
	}
	return textproto.TrimString(m.ContentType)
}

// shownByViewer reports whether browsers show values of a type with a program
// of their own, which do not start, or can't ask for the value, in a sandbox.
// Nothing in such a value runs as part of the site it is from.
func shownByViewer(contentType string) bool {
	if !beginsFold(contentType, "application/pdf") && !beginsFold(contentType, "video/") && !beginsFold(contentType, "audio/") {
		return false // as most are, without the cost of a closer look
	}
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil &&
		(t == "application/pdf" || strings.HasPrefix(t, "video/") || strings.HasPrefix(t, "audio/"))
}

// beginsFold reports whether ASCII text begins so, case and space before it aside.
func beginsFold(text, prefix string) bool {
	text = strings.TrimSpace(text)
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
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
