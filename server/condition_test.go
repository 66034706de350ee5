package server

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// rangeCases are Range headers for a value of 1000 bytes. Where this server
// differs from http.ServeContent on purpose, same is what that has to be asked
// to do the same thing, with the reason.
var rangeCases = []struct{ header, same, why string }{
	{header: ""},
	{header: "bytes=0-"},
	{header: "bytes=0-0"},
	{header: "bytes=0-999"},
	{header: "bytes=999-"},
	{header: "bytes=100-199"},
	{header: "bytes=990-5000"},
	{header: "bytes=-1"},
	{header: "bytes=-1000"},
	{header: "bytes=-4000"},
	{header: "bytes=1000-"},
	{header: "bytes=1000-1001"},
	{header: "bytes=5000-6000"},
	{header: "bytes= 1-2"},
	{header: "bytes=,1-2, ,"},
	{header: "bytes=0007-0009"},
	{header: "bytes=\t5 - 6"},

	{header: "bytes=0-1,5-6"},
	{header: "bytes=900-990,3-3 , 5-6,-2"},
	{header: "bytes=5000-,0-0,1000-1001,5-5"},
	{header: "bytes=1000-,0-0"},
	{header: "bytes=1000-,2000-3000"},
	{header: "bytes=0-999,0-0"},
	{header: "bytes=-1000,-1"},
	{header: "bytes=" + strings.Repeat("1-1,", 100) + "5000-", same: "", why: "too many ranges"},
	{header: "bytes=0-1,4-5,8-9,12-13,16-17,20-21,24-25,28-29,32-33,36-37,40-41,44-45,48-49,52-53,56-57,60-61"},

	{"bytes=0-1,4-5,8-9,12-13,16-17,20-21,24-25,28-29,32-33,36-37,40-41,44-45,48-49,52-53,56-57,60-61,9999-", "", "too many ranges"},
	{"bytes=0-1,2-3,", "bytes=0-3", "what touches is one"},
	{"bytes=10-19,0-9", "bytes=0-19", "in any order"},
	{"bytes=0-9,990-,5-14", "bytes=0-14,990-", "what overlaps is one, in the place of the first"},
	{"bytes=20-29,0-9,40-49,8-42", "bytes=0-49", "what overlaps is one, however it comes together"},
	{"bytes=-0,0-1", "bytes=0-1", "no bytes can't be a range"},
	{"bytes=0-1,x", "", "what can't be read is ignored, not refused"},
	{"bytes=2-1", "", "unreadable"},
	{"bytes=", "", "unreadable"},
	{"bytes", "", "unreadable"},
	{"bytes=-", "", "unreadable"},
	{"bytes=--1", "", "unreadable"},
	{"bytes=a-b", "", "unreadable"},
	{"bytes=1-2-3", "", "unreadable"},
	{"bytes=+1-2", "", "digits only"},
	{"bytes =1-2", "", "unreadable"},
	{"lines=1-2", "", "another unit is ignored, as the standard demands"},
	{"BYTES=1-2", "bytes=1-2", "units are compared without case"},
	{"bytes=-0", "bytes=1000-", "no bytes can't be a range, says the standard"},
	{"bytes=0-99999999999999999999", "bytes=0-", "a number can't be too large to be an end"},
	{"bytes=99999999999999999999-", "bytes=1000-", "nor to be a beginning"},
	{"bytes=-99999999999999999999", "bytes=-1000", "nor to be a length"},
}

// conditionCases are other headers. TAG stands for the present entity tag.
var conditionCases = map[string][]string{
	"If-Match": {
		"", "*", "TAG", `"x"`, `"x", TAG`, "W/TAG", `W/"x",TAG`, ",,TAG", "TAG,*", "junk", `junk, TAG`,
		`"unfinished`, ` TAG `, `"x"  ,	TAG`, `"a b", TAG`, `""`, ",", "*x", "* , TAG", "\"\xff\"\t,TAG,",
	},
	"If-None-Match": {
		"", "*", "TAG", `"x"`, `"x", TAG`, "W/TAG", `W/"x" , W/TAG`, ",,TAG", "junk", `junk, TAG`,
		`"unfinished`, "w/TAG", `"x""y"TAG`, ",", "*x", "\"\xff\"\t,TAG,",
	},
	"If-Modified-Since":   dates,
	"If-Unmodified-Since": dates,
	"If-Range":            append([]string{"TAG", `"x"`, "W/TAG", "TAG, TAG", "TAG,", "*", "junk"}, dates...),
}

var dates = []string{
	"", exampleDate, dayBefore,
	"Fri, 02 Jan 2026 03:04:04 GMT",
	"Friday, 02-Jan-26 03:04:05 GMT", // the obsolete forms
	"Fri Jan  2 03:04:05 2026",
	"Fri, 02 Jan 2026 03:04:05 CET",
	"tomorrow", "0", "2026-01-02T03:04:05Z",
}

// unlikeServeContent reports whether http.ServeContent takes a condition for
// something else than RFC 9110 does. There is a model of that in
// condition_model_test.go.
func unlikeServeContent(name, value string) bool {
	switch name {
	case "If-Match", "If-None-Match":
		return value == "" || // for no condition
			value == "*x" // for a star
	case "If-Range":
		return value == "" || strings.Contains(value, ",") || // for no condition, and for the first tag
			slices.Contains(dates, value) // for good enough
	}
	return false
}

// TestLikeServeContent compares with http.ServeContent on the same bytes.
func TestLikeServeContent(t *testing.T) {
	value := noise(1000, 1)
	for _, modified := range []time.Time{exampleTime, {}} {
		store := openStore(t)
		put(t, store, "k", value, &db.Metadata{ModTime: modified, ContentType: "a/b"})
		p := &peers{t: t, handler: NewHandler(store, nil), value: value, modified: modified, tag: etagIn(t, store, "k")}
		for _, c := range rangeCases {
			p.compare("GET", http.Header{}, c.header, c.same, c.why)
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 3000 {
			c := rangeCases[random.IntN(len(rangeCases))]
			method := []string{"GET", "GET", "HEAD"}[random.IntN(3)]
			p.compare(method, p.randomConditions(random), c.header, c.same, c.why)
		}
	}
}

// peers are the handler and http.ServeContent for the same value.
type peers struct {
	t        *testing.T
	handler  *Handler
	value    []byte
	modified time.Time
	tag      string
}

func (p *peers) randomConditions(random *rand.Rand) http.Header {
	h := http.Header{}
	for name, values := range conditionCases {
		if random.IntN(3) == 0 {
			value := values[random.IntN(len(values))]
			if unlikeServeContent(name, value) {
				continue
			}
			h.Set(name, strings.ReplaceAll(value, "TAG", p.tag))
		}
	}
	return h
}

func (p *peers) compare(method string, h http.Header, rangeHeader, same, why string) {
	p.t.Helper()
	if why == "" {
		same = rangeHeader
	}
	if method == http.MethodHead {
		same = "" // RFC 9110 defines ranges for GET only; ServeContent knows no difference
	}
	got := ask(p.handler, method, "/k", h, rangeHeader)
	want := ask(http.HandlerFunc(p.serveContent), method, "/k", h, same)

	what := fmt.Sprintf("%s Range %q %v", method, rangeHeader, h)
	if got.Code != want.Code {
		p.t.Fatalf("%s: status %d, ServeContent says %d", what, got.Code, want.Code)
	}
	compared := []string{"Content-Range"}
	if strings.HasPrefix(want.Header().Get("Content-Type"), "multipart/") {
		p.compareParts(what, got, want)
		return
	}
	if got.Code < 300 {
		compared = append(compared, "Etag", "Content-Length", "Last-Modified", "Content-Type", "Accept-Ranges")
	} else if got.Code == http.StatusNotModified {
		compared = append(compared, "Etag", "Content-Length", "Content-Type")
	}
	for _, name := range compared {
		if got, want := got.Header().Get(name), want.Header().Get(name); got != want {
			p.t.Fatalf("%s: %s %q, ServeContent says %q", what, name, got, want)
		}
	}
	if got.Code < 400 && !bytes.Equal(got.Body.Bytes(), want.Body.Bytes()) {
		p.t.Fatalf("%s: another body", what)
	}
}

// compareParts compares what the bodies mean. How long they are depends on the
// boundary.
func (p *peers) compareParts(what string, got, want *httptest.ResponseRecorder) {
	p.t.Helper()
	a := partsIn(p.t, got.Header().Get("Content-Type"), got.Body.Bytes())
	b := partsIn(p.t, want.Header().Get("Content-Type"), want.Body.Bytes())
	if !slices.Equal(a, b) {
		p.t.Fatalf("%s: parts %q, ServeContent says %q", what, a, b)
	}
	if n := got.Header().Get("Content-Length"); n != fmt.Sprint(got.Body.Len()) {
		p.t.Fatalf("%s: Content-Length %s for %d bytes", what, n, got.Body.Len())
	}
}

func (p *peers) serveContent(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", p.tag)
	w.Header().Set("Content-Type", "a/b")
	http.ServeContent(w, r, "", p.modified, bytes.NewReader(p.value))
}

func ask(h http.Handler, method, target string, header http.Header, rangeHeader string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Header = header.Clone()
	if rangeHeader != "" {
		r.Header.Set("Range", rangeHeader)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if method == http.MethodHead {
		io.Copy(io.Discard, w.Body) // the recorder does not know that there is none
	}
	return w
}

// TestSeveralRangeLines: a Range that comes twice is as good as none.
func TestSeveralRangeLines(t *testing.T) {
	if _, kind := parseRange(nil, onlyLine([]string{"bytes=0-1", "bytes=2-3"}), 10); kind != wholeValue {
		t.Error("two Range lines are not ignored")
	}
}
