package server

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

func TestUserMetadata(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	c.do("PUT", "/k", "v", "x-meta-zebra: last", "X-META-colour-ofTail: light  blue ", "X-Meta-A: 1", "x-meta-a: 2",
		"X-Meta-Empty:", "X-Meta-: nameless", "X-Metal: no").wantStatus(t, 201)

	got := c.do("GET", "/k", "")

	want := http.Header{
		"X-Meta-A": {"1", "2"}, "X-Meta-Colour-Oftail": {"light  blue"}, "X-Meta-Empty": {""}, "X-Meta-Zebra": {"last"},
	}
	if user := userHeaders(got.Header); !reflect.DeepEqual(user, want) {
		t.Errorf("got %v, want %v", user, want)
	}
	if user := userHeaders(c.do("GET", "/k", "", "If-None-Match: *").Header); len(user) > 0 {
		t.Errorf("with 304: %v", user)
	}
	c.do("PUT", "/k", "v").wantStatus(t, 204)
	if user := userHeaders(c.do("GET", "/k", "").Header); len(user) > 0 {
		t.Errorf("after a PUT without: %v", user)
	}
}

func userHeaders(h http.Header) http.Header {
	user := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Meta") {
			user[name] = values
		}
	}
	return user
}

// TestUserMetadataOfOthers: pairs that the program stored need not be headers.
func TestUserMetadataOfOthers(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), &db.Metadata{User: []db.Pair{
		{Name: "colour", Value: "blue"}, {Name: "a b", Value: "1"}, {Name: "", Value: "2"}, {Name: "n:", Value: "3"},
		{Name: "evil\r\nX-Evil", Value: "4"}, {Name: "evil", Value: "5\r\nX-Evil: 6"}, {Name: "é", Value: "7"}, {Name: "latin", Value: "é"},
	}})
	_, addr := start(t, store, nil)
	got := dial(t, addr).do("GET", "/k", "")
	got.wantStatus(t, 200)
	checkHeader(t, got, "X-Evil", "-")
	if user, want := userHeaders(got.Header), (http.Header{"X-Meta-Colour": {"blue"}}); !reflect.DeepEqual(user, want) {
		t.Errorf("got %v, want %v", user, want)
	}
}

func TestUserMetadataLimits(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil, func(s *Server) { s.http.MaxHeaderBytes = 1 << 20 })
	most := strings.Repeat("x", maxStoredHeaders-len("A")-pairOverhead)
	var many []string
	for i := range 6000 {
		many = append(many, fmt.Sprintf("X-Meta-%d:", i))
	}
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"most":          {[]string{"X-Meta-A: " + most}, 201},
		"more":          {[]string{"X-Meta-A: " + most + "x"}, 431},
		"more together": {[]string{"X-Meta-A: " + most, "Content-Type: x"}, 431},
		"many":          {many, 431},
		"not ASCII":     {[]string{"X-Meta-A: \xff"}, 400},
		"UTF-8":         {[]string{"X-Meta-A: é"}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			got := dial(t, addr).do("PUT", "/"+strings.ReplaceAll(name, " ", ""), "v", c.header...)
			got.wantStatus(t, c.status)
			if c.status >= 400 {
				checkProblem(t, got)
			}
		})
	}
}

// TestHeadIsGet: all headers are the same, whatever the way of the body.
func TestHeadIsGet(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: 1 << 20})
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for _, n := range []int{0, 1, sendfileMin, 1<<20 + 1} {
		c.do("PUT", "/k", string(noise(n, 1)), "Content-Type: text/html", "Content-Encoding: br", "Cache-Control: no-cache",
			"Content-Disposition: inline", "X-Meta-A: 1", "X-Meta-A: 2")
		got, head := c.do("GET", "/k", ""), c.do("HEAD", "/k", "")
		got.Header.Del("Date")
		head.Header.Del("Date")
		if !reflect.DeepEqual(got.Header, head.Header) || got.ContentLength != int64(n) || head.ContentLength != int64(n) {
			t.Errorf("%d bytes: GET %v, HEAD %v", n, got.Header, head.Header)
		}
		for _, name := range []string{"Etag", "Last-Modified", "Content-Length", "Accept-Ranges", "X-Meta-A", "Content-Security-Policy"} {
			if head.Header.Get(name) == "" {
				t.Errorf("HEAD without %s", name)
			}
		}
	}
}

func TestSandbox(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	free := []string{"application/pdf", "Application/PDF; a=b", "video/mp4", "audio/ogg"}
	for _, contentType := range append([]string{
		"", "text/html", "image/svg+xml", "image/png", "videos/mp4", "text/xml", "application/pdfx", "x/y, application/pdf",
		"text/html;application/pdf", "application/pdf; a",
	}, free...) {
		c.do("PUT", "/k", "v", "Content-Type: "+contentType)
		for _, header := range [][]string{nil, {"Range: bytes=0-0"}} {
			got := c.do("GET", "/k", "", header...)
			want := "sandbox"
			if slices.Contains(free, contentType) {
				want = "-"
			}
			t.Run(contentType, func(t *testing.T) {
				checkHeader(t, got, "Content-Security-Policy", want)
				checkHeader(t, got, "X-Content-Type-Options", "nosniff")
			})
		}
	}
}
