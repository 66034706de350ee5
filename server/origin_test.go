package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// TestOrigins promises that pages of the sites that are allowed may read every
// answer, errors as well, that others may not, and that caches hear of it. Method:
// requests with and without the fast path, which differ in origin and token.
func TestOrigins(t *testing.T) {
	const site = "https://maps.example"
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		put(t, store, "k", []byte("hello"), &db.Metadata{ModTime: exampleTime})
		o := &Options{Tokens: exampleTokens(t), AllowOrigins: []string{"http://localhost:8080", site}}
		_, addr := start(t, store, o, func(s *Server) { s.slow = slow })
		for _, c := range []struct {
			method, target, header string
			status                 int
		}{
			{"GET", "/k", "Authorization: Bearer " + tokenRO, 200},
			{"GET", "/k", "Authorization: Bearer " + tokenRO + "\r\nRange: bytes=1-2", 206},
			{"GET", "/k", "Authorization: Bearer " + tokenRO + "\r\nRange: bytes=9-", 416},
			{"GET", "/k", "Authorization: Bearer " + tokenRO + "\r\nIf-Match: \"x\"", 412},
			{"GET", "/k", "Authorization: Bearer " + tokenRO + "\r\nIf-Modified-Since: " + exampleDate, 304},
			{"GET", "/none", "Authorization: Bearer " + tokenRO, 404},
			{"GET", "/", "Authorization: Bearer " + tokenRO, 200},
			{"GET", "/k", "Accept: */*", 401},
			{"DELETE", "/k", "Authorization: Bearer " + tokenRO, 403},
			{"PATCH", "/k", "Authorization: Bearer " + tokenRW, 405},
		} {
			for origin, want := range map[string]string{site: site, "http://localhost:8080": "http://localhost:8080",
				"https://evil.example": "", "https://maps.example.evil": "", "null": "", "": ""} {
				header := []string{c.header}
				if origin != "" {
					header = append(header, "Origin: "+origin)
				}
				got := dial(t, addr).do(c.method, c.target, "", header...)
				got.wantStatus(t, c.status)
				checkHeader(t, got, "Access-Control-Allow-Origin", want)
				if !slices.Contains(got.Header["Vary"], "Origin") {
					t.Errorf("%+v of %q: Vary %q", c, origin, got.Header["Vary"])
				}
				if exposed := got.Header.Get("Access-Control-Expose-Headers"); (want != "") != strings.Contains(exposed, "Content-Range, ETag") {
					t.Errorf("%+v of %q: exposed %q", c, origin, exposed)
				}
			}
		}
	}
}

// TestPreflight promises what a page of another site may send.
func TestPreflight(t *testing.T) {
	store := openStore(t)
	ask := func(allowed, origin string) http.Header {
		_, addr := start(t, store, &Options{Tokens: exampleTokens(t), AllowOrigins: []string{allowed}})
		got := dial(t, addr).do("OPTIONS", "/k", "", "Origin: "+origin, "Access-Control-Request-Method: PUT",
			"Access-Control-Request-Headers: authorization,if-match, x-meta-a,x-other,range", "Access-Control-Request-Private-Network: true")
		if origin == "https://evil.example" && allowed != "*" {
			got.wantStatus(t, 401)
		} else {
			got.wantStatus(t, 204)
		}
		return got.Header
	}
	for _, c := range []struct{ allowed, origin, want string }{
		{"https://a.example", "https://a.example", "https://a.example"},
		{"*", "https://evil.example", "*"},
	} {
		h := ask(c.allowed, c.origin)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":          c.want,
			"Access-Control-Allow-Methods":         "GET, HEAD, PUT, DELETE",
			"Access-Control-Allow-Headers":         "Authorization, If-Match, X-Meta-A, Range",
			"Access-Control-Allow-Private-Network": "true",
			"Access-Control-Allow-Credentials":     "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	if h := ask("https://a.example", "https://evil.example"); h.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("another site: %v", h)
	}
}

// TestOriginsAreChecked promises that an origin which no browser sends, or that no
// token guards, is refused.
func TestOriginsAreChecked(t *testing.T) {
	tokens := exampleTokens(t)
	for _, good := range []string{"*", "https://a.example", "http://localhost:8080", "http://[::1]:8080", "capacitor://localhost"} {
		if err := (&Options{AllowOrigins: []string{good}, Tokens: tokens}).Check(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
		if (&Options{AllowOrigins: []string{good}}).Check() == nil {
			t.Errorf("%s is taken without tokens", good)
		}
	}
	for _, bad := range []string{"", "null", "a.example", "https://", "https://a.example/", "https://A.example", "https://*.example",
		"https://a.example:443", "http://a.example:80", "https://u@a.example", "https://a.example?b", "https://a\r\nX: y"} {
		if (&Options{AllowOrigins: []string{bad}, Tokens: tokens}).Check() == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
