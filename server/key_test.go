package server

import (
	"net/url"
	"slices"
	"testing"
)

// awkwardKeys are keys that a server with other ideas about paths would lose.
func awkwardKeys() []string {
	keys := []string{
		"/", "//", "///", "a/", "/a", "a//b", "//a", ".", "..", "./", "../", "../x", "a/..", "a/../b", "a/./b",
		"...", ".a", "a.", "-", "-/", "-/x", "-/-/", "/-/", "%", "%2F", "a%2Fb", "%2e%2e/", "%zz", "?", "?a=b", "#", "a#b",
		" ", "a b", "+", "a+b", "*", "http://host/k", `"`, `-/"`, "é", "\xff\xfe", "\x00", "a\x00b", "\r\n", ";a=b", "a:b", "@", "\\",
	}
	for c := range 256 {
		keys = append(keys, string([]byte{byte(c)}), string([]byte{'a', byte(c), 'b'}))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func TestEveryKeyHasAPath(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for i, key := range awkwardKeys() {
		value := noise(10, byte(i))
		put(t, store, key, value, nil)

		got := c.do("GET", pathOf([]byte(key)), "")
		got.wantStatus(t, 200)
		got.wantBody(t, value)

		c.do("DELETE", pathOf([]byte(key)), "").wantStatus(t, 204)
		c.do("PUT", pathOf([]byte(key)), "new").wantStatus(t, 201)
		if value, err := store.Get(nil, []byte(key)); err != nil || string(value) != "new" {
			t.Fatalf("key %q, written through its path: %q, %v", key, value, err)
		}
	}
}

// TestPathsSurviveClients resolves the paths in a listing as clients do.
func TestPathsSurviveClients(t *testing.T) {
	base, err := url.Parse("http://host:1/?limit=1")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range awkwardKeys() {
		if key == "." || key == ".." {
			continue // some clients take %2E for a dot: there is no better path
		}
		resolved, err := base.Parse(pathOf([]byte(key)))
		if err != nil {
			t.Fatalf("key %q: %v", key, err)
		}
		got, kind := splitPath(resolved)
		if resolved.Host != "host:1" || kind != keyPath || got != key {
			t.Errorf("key %q, path %q: a client would ask for %q (%v)", key, pathOf([]byte(key)), resolved, kind)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		target, key string
		kind        pathKind
	}{
		{"/", "", keyPath},
		{"/k", "k", keyPath},
		{"/a/b", "a/b", keyPath},
		{"/a%2Fb", "a/b", keyPath},
		{"/a%2fb", "a/b", keyPath},
		{"/%252F", "%2F", keyPath},
		{"/a+b", "a+b", keyPath},
		{"//", "/", keyPath},
		{"//a", "/a", keyPath},
		{"/..", "..", keyPath},
		{"/../../etc/passwd", "../../etc/passwd", keyPath},
		{"/a/./b/", "a/./b/", keyPath},
		{"/a;b=c", "a;b=c", keyPath},
		{"/a#b", "a#b", keyPath},
		{"/%FF%00", "\xff\x00", keyPath},
		{"/é", "é", keyPath},
		{"/-", "-", keyPath},
		{"/-a", "-a", keyPath},
		{"/-%2Fx", "-/x", keyPath},
		{"/%2D/x", "-/x", keyPath},
		{"/%2d/x", "-/x", keyPath},
		{`/%2D/"x`, `-/"x`, keyPath},
		{"//-/x", "/-/x", keyPath},
		{"/-/", "", reservedPath},
		{"/-/x", "", reservedPath},
		{"/-//%2F", "", reservedPath},
		{`/-/"`, "", reservedPath},
		{"http://host/k", "k", keyPath},
		{"http://host//k", "/k", keyPath},
		{"http://host/-/k", "", reservedPath},
		{"http://host", "", keyPath},
		{"HTTPS://host/k", "k", keyPath},
		{"http:///k", "", badPath},
		{"http:k", "", badPath},
		{"http://user@host/k", "", badPath},
		{"ftp://host/k", "", badPath},
		{"localhost:80", "", badPath},
		{"mailto:a", "", badPath},
		{"*", "", badPath},
	} {
		u, err := url.ParseRequestURI(c.target) // as net/http does
		if err != nil {
			t.Fatalf("%s: %v", c.target, err)
		}
		if key, kind := splitPath(u); key != c.key || kind != c.kind {
			t.Errorf("%s: key %q (%v), want %q (%v)", c.target, key, kind, c.key, c.kind)
		}
	}
}

// TestAbsoluteTarget: a proxy may ask with the whole URL.
func TestAbsoluteTarget(t *testing.T) {
	store := openStore(t)
	put(t, store, "a//b", []byte("v"), nil)
	_, addr := start(t, store, nil)
	got := dial(t, addr).do("GET", "http://"+addr+"/a//b", "")
	got.wantStatus(t, 200)
	got.wantBody(t, []byte("v"))
}

func TestKeyTooLong(t *testing.T) {
	_, addr := start(t, openStore(t), nil, func(s *Server) { s.http.MaxHeaderBytes = 1 << 20 })
	c := dial(t, addr)
	long := make([]byte, 65536)
	for i := range long {
		long[i] = 'k'
	}
	c.do("PUT", "/"+string(long), "v").wantStatus(t, 414)
	c.do("PUT", "/"+string(long[1:]), "v").wantStatus(t, 201)
	got := c.do("GET", "/"+string(long[1:]), "")
	got.wantStatus(t, 200)
	got.wantBody(t, []byte("v"))
}
