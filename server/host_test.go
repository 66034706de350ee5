package server

import (
	"net/http"
	"testing"
)

func TestHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"localhost": true, "localhost:7070": true, "LocalHost.": true, "a.localhost": true, "a.b.localhost:1": true,
		"127.0.0.1": true, "127.0.0.1:7070": true, "127.9.8.7:1": true, "[::1]": true, "[::1]:7070": true,
		"[::ffff:127.0.0.1]:1": true, "localhost:": true,

		"example.com": false, "example.com:7070": false, "localhost.example.com": false, "notlocalhost": false,
		"127.0.0.1.example.com": false, "127.0.0.1.": false, "192.0.2.1": false, "0.0.0.0": false, "[::]": false,
		"[2001:db8::1]:80": false, "128.0.0.1": false, "localhost@example.com": false, ".": false, "[": false,
		"example.com:localhost": false,
	} {
		if got := loopbackHost(host); got != ok {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// TestHostForms: what is not even a host.
func TestHostForms(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "a": true, "A-b.c_d~": true, "a:": true, "a:80": true, ":80": true, "1.2.3.4:5": true, "[::1]": true, "[::1]:80": true,
		"[::ffff:1.2.3.4]:": true, "a,b": true, "a%20b": true, "%ff": true, "!$&'()*+;=": true,

		"a b": false, "a:b": false, "a:80b": false, "a:-1": false, "a:80:80": false, "::1": false, "[::1": false, "::1]": false, "[]": false,
		"[::1]80": false, "[::1]]": false, "[g::]": false, "[::1%25lo]": false, "a[::1]": false, "u@a": false, "a/b": false, "a?b": false, "a#b": false,
		`a\b`: false, "a%": false, "a%2": false, "%2g": false, "é": false, "a\x00": false, "a\t": false,
	} {
		if got := validHost([]byte(host)); got != ok {
			t.Errorf("%q: %v", host, got)
		}
	}
}

// TestRebinding: a page that had its own name resolved to this machine.
func TestRebinding(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	s, addr := start(t, store, nil)
	for _, target := range []string{"/k", "/", "/-/health", "http://example.com/k"} {
		c := dial(t, addr)
		c.send("GET " + target + " HTTP/1.1\r\nHost: example.com\r\n\r\n")
		got := c.receive("GET")
		got.wantStatus(t, 421)
		checkProblem(t, got)
	}
	c := dial(t, addr)
	c.send("DELETE /k HTTP/1.1\r\nHost: example.com:7070\r\n\r\n")
	c.receive("DELETE").wantStatus(t, 421)
	c.send("PUT /k HTTP/1.1\r\nHost: example.com:7070\r\nContent-Length: 1\r\n\r\nx")
	c.receive("PUT").wantStatus(t, 421)
	c.do("GET", "/k", "").wantBody(t, []byte("v"))
	if n := s.Stats().Get.ClientError; n != 4 {
		t.Errorf("%d refusals counted", n)
	}

	c = dial(t, addr) // not from a browser
	c.send("GET /k HTTP/1.0\r\n\r\n")
	c.receive("GET").wantStatus(t, 200)

	// Whoever embeds the handler knows its names.
	if w := ask(NewHandler(store, nil), "GET", "http://example.com/k", http.Header{}, ""); w.Code != 200 {
		t.Errorf("handler: status %d", w.Code)
	}
}
