package server

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// TestWritesMeanWhatTheySay promises that a write or delete which says more than
// its key, or says it in a way that can't be read, is refused and changes nothing,
// and that what proxies and clients add to any request is no reason. Method: over
// connections with and without the fast path.
func TestWritesMeanWhatTheySay(t *testing.T) {
	refused := []struct {
		target, header string
		status         int
	}{
		{"/k?tagging", "", 400},
		{"/k?", "", 400},
		{"/k?partNumber=1&uploadId=x", "", 400},
		{"/k?versionId=1", "", 400},
		{"/k", "Content-Range: bytes 0-1/10", 400},
		{"/k", "Range: bytes=0-1", 400},
		{"/k", "Range: bytes=0-1\r\nRange: bytes=2-3", 400},
		{"/k", "Trailer: Content-MD5", 400},
		{"/k", "If-Match: unquoted", 400},
		{"/k", `If-None-Match: "a" "b"`, 400},
		{"/k", "If-None-Match: *x", 400},
		{"/k", "If-Unmodified-Since: some day", 400},
		{"/k", "If-Unmodified-Since: " + exampleDate + "\r\nIf-Unmodified-Since: " + exampleDate, 400},
		{"/k", "If-Unmodified-Since:", 400},
		{"/k", "Content-Encoding: aws-chunked", 501},
		{"/k", "Content-Encoding: gzip, AWS-Chunked", 501},
		{"/k", "Content-Transfer-Encoding: base64", 501},
		{"/k", "Content-Other: x", 501},
		{"/k", "Content-Type: Multipart/ByteRanges; boundary=x", 400},
		{"/k", "OC-Chunked: 1", 501},
		{"/k", "X-Oss-Copy-Source: /b/other", 501},
		{"/k", "X-Amz-Copy-Source: /b/other", 501},
		{"/k", "x-amz-acl: private", 501},
		{"/k", "X-Goog-If-Generation-Match: 0", 501},
		{"/k", "x-ms-copy-source: http://localhost/x", 501},
		{"/k", "X-Copy-From: b/other", 501},
		{"/k", "X-Object-Manifest: b/parts", 501},
		{"/k", "X-Delete-After: 60", 501},
		{"/k", "X-HTTP-Method-Override: PATCH", 501},
		{"/k", "Destination: /other", 501},
		{"/k", "Upload-Offset: 10", 501},
		{"/k", "X-Update-Range: append", 501},
		{"/k", "Expect: 200-maybe", 417},
	}
	fine := []string{
		"Via: 1.1 proxy", "X-Forwarded-For: 127.0.0.1", "Traceparent: 00-1-2-01", "X-Amzn-Trace-Id: Root=1", "X-Amz-Cf-Id: x",
		"Accept: */*", "Cookie: a=b", "If-Modified-Since: " + exampleDate, `If-None-Match: "other"`, "X-Meta-If: 1",
	}
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		_, addr := start(t, store, nil, func(s *Server) { s.slow = slow })
		put(t, store, "text", []byte("v"), nil)
		for _, method := range []string{"PUT", "DELETE"} {
			for _, c := range refused {
				put(t, store, "k", []byte("before"), &db.Metadata{ModTime: exampleTime})
				tag := etagIn(t, store, "k")
				t.Run(fmt.Sprint(method, c.target, c.header, slow), func(t *testing.T) {
					conn := dial(t, addr)
					body := ""
					if method == "PUT" {
						body = "after"
					}
					var header []string
					if c.header != "" {
						header = []string{c.header}
					}
					if method == "DELETE" && c.status == 417 {
						return // net/http judges an expectation where there is a body
					}
					conn.do(method, c.target, body, header...).wantStatus(t, c.status)
					if got := etagIn(t, store, "k"); got != tag {
						t.Error("the value has changed")
					}
				})
			}
			for _, header := range fine {
				put(t, store, "k", []byte("before"), &db.Metadata{ModTime: exampleTime})
				conn := dial(t, addr)
				body := ""
				if method == "PUT" {
					body = "after"
				}
				conn.do(method, "/k", body, header).wantStatus(t, 204)
			}
		}
		dial(t, addr).do("GET", "/k?cache=1", "").wantStatus(t, 404)
		dial(t, addr).do("POST", "/-/compact?dry-run", "").wantStatus(t, 400)
		tag := etagIn(t, store, "text")
		dial(t, addr).do("DELETE", "/text", "versions").wantStatus(t, 400)
		if etagIn(t, store, "text") != tag {
			t.Error("a DELETE with a body has deleted")
		}
	}
}

// TestDatesFromOutside promises that a date which was not made here does not stand
// for a value that has changed: that of archives which are built to be the same
// each time, one in the future, and an older one in place of a newer one.
func TestDatesFromOutside(t *testing.T) {
	store := openStore(t)
	h := NewHandler(store, nil)
	future := time.Now().Add(24 * time.Hour)
	for _, c := range []struct {
		what     string
		modified time.Time
		asked    time.Time
		shown    bool
		want     int
	}{
		{"the same", exampleTime, exampleTime, true, 304},
		{"1970", time.Unix(0, 0), time.Unix(0, 0), false, 200},
		{"1970, and a bit", time.Unix(0, 5e8), time.Unix(0, 0), false, 200},
		{"before", time.Unix(-5, 0), time.Unix(0, 0), false, 200},
		{"the future", future, future, false, 200},
		{"since tomorrow", exampleTime, future, true, 304},
		{"an older one", exampleTime.Add(-time.Hour), exampleTime, true, 200},
		{"a newer one", exampleTime.Add(time.Hour), exampleTime, true, 200},
	} {
		put(t, store, "k", []byte("v"), &db.Metadata{ModTime: c.modified})
		w := ask(h, "GET", "/k", http.Header{"If-Modified-Since": {c.asked.UTC().Format(http.TimeFormat)}}, "")
		if w.Code != c.want {
			t.Errorf("%s: status %d, want %d", c.what, w.Code, c.want)
		}
		if got := w.Header().Get("Last-Modified"); (got != "") != c.shown {
			t.Errorf("%s: Last-Modified %q", c.what, got)
		}
		if c.shown {
			continue
		}
		w = ask(h, "PUT", "/k", http.Header{"If-Unmodified-Since": {future.Add(time.Hour).UTC().Format(http.TimeFormat)}}, "")
		if w.Code != http.StatusPreconditionFailed {
			t.Errorf("%s: a PUT whose condition can't be judged: status %d %s", c.what, w.Code, w.Body)
		}
	}
}
