package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// page is a page of a listing in JSON.
type page struct {
	Keys []listEntry
	Next string
}

func getPage(t *testing.T, c *wire, query string) page {
	t.Helper()
	got := c.do("GET", "/"+query, "")
	got.wantStatus(t, 200)
	var p page
	if err := json.Unmarshal(got.body, &p); err != nil {
		t.Fatalf("%v in %.200q", err, got.body)
	}
	want := ""
	if p.Next != "" {
		want = "<" + p.Next + `>; rel="next"`
	}
	checkHeader(t, got, "Link", want)
	return p
}

// walk returns the paths on all pages from a query on.
func walk(t *testing.T, c *wire, query string) (paths []string, pages int) {
	t.Helper()
	for {
		p := getPage(t, c, query)
		pages++
		for _, e := range p.Keys {
			paths = append(paths, e.Path)
		}
		if p.Next == "" {
			return paths, pages
		}
		query = p.Next
	}
}

func TestListEntry(t *testing.T) {
	store := openStore(t)
	put(t, store, "a \xff", []byte("abc"), &db.Metadata{ModTime: exampleTime, ContentType: "a/b"})
	put(t, store, "b", nil, nil)
	_, addr := start(t, store, nil)

	p := getPage(t, dial(t, addr), "")

	want := []listEntry{
		{"a \ufffd", "/a%20%FF", 3, etagIn(t, store, "a \xff"), "a/b", exampleTime},
		{"b", "/b", 0, etagIn(t, store, "b"), "application/octet-stream", time.Time{}},
	}
	if !slices.Equal(p.Keys, want) || p.Next != "" {
		t.Errorf("listing %+v, want %+v", p, want)
	}
}

func TestPagesAreTheWhole(t *testing.T) {
	store := openStore(t)
	keys := awkwardKeys()
	for i := range 1500 {
		keys = append(keys, fmt.Sprintf("many/%d", i))
	}
	slices.Sort(keys)
	var want []string
	for _, key := range keys {
		put(t, store, key, []byte(key), nil)
		want = append(want, pathOf([]byte(key)))
	}
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for _, limit := range []int{7, 100, 999, 1000} {
		got, pages := walk(t, c, fmt.Sprintf("?limit=%d", limit))
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %d keys by pages, want %d", limit, len(got), len(want))
		}
		if wantPages := (len(want) + limit - 1) / limit; pages != wantPages {
			t.Errorf("limit %d: %d pages, want %d", limit, pages, wantPages)
		}
	}
	if got, _ := walk(t, c, ""); !slices.Equal(got, want) {
		t.Errorf("no limit: %d keys by pages, want %d", len(got), len(want))
	}
}

func TestListPrefixAndStart(t *testing.T) {
	store := openStore(t)
	for _, key := range []string{"a", "a/1", "a/2", "a/3", "b", "\xff", "\xff\xff", "\xff\xff\x01"} {
		put(t, store, key, nil, nil)
	}
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for query, want := range map[string]string{
		"?prefix=a/":                 "/a/1 /a/2 /a/3",
		"?prefix=a%2F&limit=1":       "/a/1 /a/2 /a/3",
		"?prefix=a/&start=a/2":       "/a/2 /a/3",
		"?prefix=a/&start=":          "/a/1 /a/2 /a/3",
		"?prefix=a/&start=A":         "/a/1 /a/2 /a/3",
		"?prefix=a/&start=b":         "",
		"?start=a/3":                 "/a/3 /b /%FF /%FF%FF /%FF%FF%01",
		"?prefix=%FF%FF&limit=1":     "/%FF%FF /%FF%FF%01",
		"?prefix=zzz":                "",
		"?start=%FF%FF%01%00&prefix": "",
	} {
		if got, _ := walk(t, c, query); strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestListText(t *testing.T) {
	store := openStore(t)
	for _, key := range []string{"a", "b\n", "c"} {
		put(t, store, key, nil, nil)
	}
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	got := c.do("GET", "/", "", "Accept: text/plain, */*;q=0.1")
	got.wantStatus(t, 200)
	got.wantBody(t, []byte("/a\n/b%0A\n/c\n"))
	for _, accept := range []string{"*/*", "text/html", "application/json, text/plain"} {
		checkHeader(t, c.do("GET", "/", "", "Accept: "+accept), "Content-Type", "application/json")
	}
}

// TestListLargeKeys: a page has a bound in bytes as well.
func TestListLargeKeys(t *testing.T) {
	store := openStore(t)
	var want []string
	for i := range 60 {
		key := fmt.Sprintf("%02d%s", i, strings.Repeat("k", 60_000))
		put(t, store, key, nil, nil)
		want = append(want, "/"+key)
	}
	h := NewHandler(store, nil)
	var got []string
	for query := ""; ; {
		w := ask(h, "GET", "/"+query, http.Header{}, "")
		if w.Body.Len() > maxPageBytes+4*db.MaxKey {
			t.Fatalf("a page of %d bytes", w.Body.Len())
		}
		var p page
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Keys {
			got = append(got, e.Path)
		}
		if p.Next == "" {
			break
		}
		query = p.Next
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d keys by pages, want %d", len(got), len(want))
	}
}
