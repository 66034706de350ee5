package server

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// What a write or delete says beyond its key may change what it means: a query
// names another resource (RFC 9110, section 4.2.5), a header may ask for a copy, a
// part, an append or another coding of the body. To drop such a thing would
// replace a value by something else. So all that is known to change the meaning is
// refused, before the body is read, and nothing is changed.

// otherOperation are header fields that make something else of a PUT or DELETE
// where they are understood.
var otherOperation = []string{
	"X-Update-Range", "X-Patch-Range", "Im", // a part or a difference
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", // another method
	"Destination", "Overwrite", "Depth", "If", "Lock-Token", // WebDAV
	"Oc-Chunked", "X-Symlink-Target", // a piece, a link
}

// otherProtocol are the beginnings of the names of header fields by which other
// object stores ask for other operations: copies, parts, access rights, tags,
// conditions of their own.
var otherProtocol = []string{"X-Amz-", "X-Goog-", "X-Ms-", "X-Copy-From", "X-Object-", "X-Delete-", "X-Oss-", "X-Cos-", "X-Obs-", "X-Upload-", "Upload-", "Tus-"}

// byProxies are fields that begin so and ask for nothing: proxies add them.
var byProxies = []string{"X-Amz-Cf-Id", "X-Goog-Authenticated-User-", "X-Goog-Iap-", "X-Ms-Client-Principal"}

// contentFields are the fields about a body that are stored, checked or only tell
// of it. Another one may say that the body is not the value.
var contentFields = []string{
	"Content-Type", "Content-Length", "Content-Encoding", "Content-Disposition", "Content-Language", "Content-Location",
	"Content-Md5", "Content-Digest",
}

const notInPart = "a part of a value can't be written or deleted: nothing was changed"

// refuseWrite returns why a PUT, POST or DELETE is not what it seems to be, or
// nil.
func refuseWrite(r *http.Request) *refusal {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return &refusal{http.StatusBadRequest, "a query is not part of a key, and nothing here takes one: nothing was changed; write %3F for a question mark"}
	}
	if len(r.Trailer) > 0 || len(r.Header["Trailer"]) > 0 {
		return &refusal{http.StatusBadRequest, errTrailer.Error()}
	}
	if len(r.Header["Range"]) > 0 || len(r.Header["Content-Range"]) > 0 {
		return &refusal{http.StatusBadRequest, notInPart}
	}
	if r.Method == http.MethodDelete && r.ContentLength != 0 {
		return &refusal{http.StatusBadRequest, "DELETE takes no body, which might tell what to delete: nothing was changed"}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Content-") && !slices.Contains(contentFields, name) {
			return &refusal{http.StatusNotImplemented, "the header field " + name + " is not understood, and may say that the body is not the value: nothing was changed"}
		}
		if slices.Contains(otherOperation, name) || beginsWithAny(name, otherProtocol) && !beginsWithAny(name, byProxies) {
			return &refusal{http.StatusNotImplemented, "the header field " + name + " asks for an operation that this server does not have: nothing was changed"}
		}
	}
	return nil
}

func beginsWithAny(name string, beginnings []string) bool {
	return slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(name, b) })
}

// refuseWrite returns what is wrong with the fields of a write, or nil: a
// condition that can't be read must not become a write without a condition.
func (q *request) refuseWrite() *refusal {
	if q.ranges != "" {
		return &refusal{http.StatusBadRequest, notInPart}
	}
	for _, list := range []string{q.ifMatch, q.ifNoneMatch} {
		if list != "" && !validTags(list) {
			return &refusal{http.StatusBadRequest, `If-Match and If-None-Match take "*" or a list of entity tags in quotes`}
		}
	}
	if _, ok := parseDate(q.ifUnmodifiedSince, time.Now()); !ok && q.ifUnmodifiedSince != "" && q.ifMatch == "" {
		return &refusal{http.StatusBadRequest, "If-Unmodified-Since takes one date, such as Mon, 02 Jan 2006 15:04:05 GMT"}
	}
	if kind, _, _ := strings.Cut(q.contentType, ";"); strings.EqualFold(strings.TrimSpace(kind), "multipart/byteranges") {
		return &refusal{http.StatusBadRequest, notInPart}
	}
	for coding := range strings.SplitSeq(q.contentEncoding, ",") {
		if strings.EqualFold(strings.TrimSpace(coding), "aws-chunked") {
			return &refusal{http.StatusNotImplemented, "the content coding aws-chunked is not understood: nothing was changed"}
		}
	}
	return nil
}

// validTags reports whether a list of entity tags can be read to its end.
func validTags(list string) bool {
	for {
		if list = strings.TrimLeft(list, " \t,"); list == "" {
			return true // the empty list, which nothing is in, is one too
		}
		rest, ok := strings.CutPrefix(list, "*")
		if !ok {
			_, rest, ok = scanTag(list)
		}
		if list = strings.TrimLeft(rest, " \t"); !ok || list != "" && list[0] != ',' {
			return false
		}
	}
}
