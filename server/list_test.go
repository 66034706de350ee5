package server

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// page is a page of a listing in JSON.
type page struct {
	Keys     []listEntry
	Prefixes []listPrefix
	Next     string
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

// TestRollUp compares listings with a delimiter with the plain way to make one,
// page by page, in both forms.
func TestRollUp(t *testing.T) {
	store := openStore(t)
	random := rand.New(rand.NewPCG(3, 4))
	alphabet := []string{"a", "b", "/", "//", "\xff", "\xff\xff", "%", "+", "é", "\x00", "-"}
	keys := awkwardKeys()
	for range 1500 {
		var key string
		for range 1 + random.IntN(7) {
			key += alphabet[random.IntN(len(alphabet))]
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for _, key := range keys {
		put(t, store, key, nil, nil)
	}
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for range 70 {
		pick := func(most int) (s string) {
			for range random.IntN(most + 1) {
				s += alphabet[random.IntN(len(alphabet))]
			}
			return s
		}
		prefix, delimiter, from, limit := pick(2), alphabet[random.IntN(len(alphabet))]+pick(1), pick(2), 1+random.IntN(60)
		want := rolledUp(keys, prefix, delimiter, from)
		query := "?" + url.Values{"prefix": {prefix}, "delimiter": {delimiter}, "start": {from}, "limit": {fmt.Sprint(limit)}}.Encode()
		got, pages := walkRolled(t, c, query)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %d entries by pages, want %d:\n%q\n%q", query, len(got), len(want), got, want)
		}
		if wantPages := max(1, (len(want)+limit-1)/limit); pages != wantPages {
			t.Errorf("%s: %d pages of %d, want %d", query, pages, limit, wantPages)
		}
		if text := walkText(t, c, query); !slices.Equal(text, want) {
			t.Fatalf("%s: %d lines of text, want %d", query, len(text), len(want))
		}
	}
}

// rolledUp are the paths a listing should have, in order.
func rolledUp(keys []string, prefix, delimiter, from string) (paths []string) {
	for _, key := range keys {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok || key < from {
			continue
		}
		if before, _, ok := strings.Cut(rest, delimiter); ok {
			key = prefix + before + delimiter
		}
		if path := pathOf([]byte(key)); len(paths) == 0 || paths[len(paths)-1] != path {
			paths = append(paths, path)
		}
	}
	return paths
}

// walkRolled merges the keys and prefixes of each page.
func walkRolled(t *testing.T, c *wire, query string) (paths []string, pages int) {
	t.Helper()
	for {
		p := getPage(t, c, query)
		pages++
		var keys []string
		for _, e := range p.Keys {
			keys = append(keys, unescape(t, e.Path))
		}
		for _, e := range p.Prefixes {
			keys = append(keys, unescape(t, e.Path))
		}
		slices.Sort(keys)
		for _, key := range keys {
			paths = append(paths, pathOf([]byte(key)))
		}
		if p.Next == "" {
			return paths, pages
		}
		query = p.Next
	}
}

func unescape(t *testing.T, path string) string {
	t.Helper()
	key, err := url.PathUnescape(path[1:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// walkText follows the Link headers.
func walkText(t *testing.T, c *wire, query string) (paths []string) {
	t.Helper()
	for {
		got := c.do("GET", "/"+query, "", "Accept: text/plain")
		got.wantStatus(t, 200)
		for line := range strings.Lines(string(got.body)) {
			paths = append(paths, strings.TrimSuffix(line, "\n"))
		}
		next, ok := strings.CutPrefix(got.Header.Get("Link"), "<")
		if !ok {
			return paths
		}
		query, _, _ = strings.Cut(next, ">")
	}
}

// TestRollUpForm: what a client sees that looks at a tree level by level.
func TestRollUpForm(t *testing.T) {
	store := openStore(t)
	for _, key := range []string{"a", "b c/1", "b c/2", "b c/d/3", "\xff/1"} {
		put(t, store, key, nil, nil)
	}
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	p := getPage(t, c, "?delimiter=/")
	want := []listPrefix{{"b c/", "/b%20c/"}, {"\ufffd/", "/%FF/"}}
	if len(p.Keys) != 1 || p.Keys[0].Path != "/a" || !slices.Equal(p.Prefixes, want) {
		t.Errorf("top: %+v", p)
	}
	p = getPage(t, c, "?delimiter=/&prefix="+p.Prefixes[0].Path[1:]) // a path needs no more escaping
	if len(p.Keys) != 2 || !slices.Equal(p.Prefixes, []listPrefix{{"b c/d/", "/b%20c/d/"}}) {
		t.Errorf("below: %+v", p)
	}
	for query, want := range map[string]string{
		"?delimiter=/&prefix=zzz": `{"keys":[],"prefixes":[]}` + "\n",
		"?delimiter=&prefix=zzz":  `{"keys":[]}` + "\n",
		"?delimiter&prefix=zzz":   `{"keys":[]}` + "\n",
	} {
		if got := c.do("GET", "/"+query, ""); string(got.body) != want {
			t.Errorf("%s: %q", query, got.body)
		}
	}
	c.do("GET", "/?delimiter=/&delimiter=x", "").wantStatus(t, 400)
}

// TestRollUpSkips: to list the top of a tree costs no look at what is below.
func TestRollUpSkips(t *testing.T) {
	store := openStore(t)
	var b db.Batch
	for i := range 60_000 {
		b.Put(fmt.Appendf(nil, "%d/%05d", i%3, i), nil, nil)
	}
	if err := store.Apply(&b, nil); err != nil {
		t.Fatal(err)
	}
	h := NewHandler(store, nil)
	took := func(query string) time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			if w := ask(h, "GET", "/"+query, http.Header{}, ""); w.Code != 200 {
				t.Fatal(w.Body)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	took("") // sorts the keys
	if top, page := took("?delimiter=/"), took("?limit=1000"); top > page/2 {
		t.Errorf("3 prefixes took %v, 1000 keys %v", top, page)
	}
}

// TestPagesOfLongKeys promises that the server takes each reference to a next page
// that it gives, however long the keys are, and that a page ends where it should.
// Method: keys of any length up to the longest that differ in their last byte, in
// their first, and below a delimiter; pages of one and of many.
func TestPagesOfLongKeys(t *testing.T) {
	store := openStore(t)
	var want []string
	for _, n := range []int{1, 300, 400, 1000, 8000, 20000, db.MaxKey} {
		for _, text := range []string{"a", "\u00fc", "d/"} {
			key := strings.Repeat(text, n/len(text)+1)[:n-1]
			for _, last := range []string{"x", "y", "\xff"} {
				put(t, store, key+last, []byte("v"), nil)
				want = append(want, key+last)
			}
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	_, addr := start(t, store, nil)
	for _, query := range []string{"?limit=1", "?limit=2", "?limit=7"} {
		paths, _ := walk(t, dial(t, addr), query)
		if len(paths) != len(want) {
			t.Fatalf("%s: %d keys, want %d", query, len(paths), len(want))
		}
		for i, path := range paths {
			if path != pathOf([]byte(want[i])) {
				t.Fatalf("%s: key %d is wrong", query, i)
			}
		}
	}
	below := len(want) - len(slices.DeleteFunc(slices.Clone(want), func(key string) bool { return strings.Contains(key, "/") }))
	if paths, pages := walk(t, dial(t, addr), "?limit=1&delimiter=/"); len(paths) != len(want)-below || pages != len(paths)+1 {
		t.Errorf("with a delimiter: %d keys on %d pages, want %d and a prefix", len(paths), pages, len(want)-below)
	}

	// A key that is gone can't be gone on from.
	long := strings.Repeat("a", 7999)
	c := dial(t, addr)
	p := getPage(t, c, "?limit=1&start="+long+"x")
	if err := store.Delete([]byte(long+"x"), nil); err != nil {
		t.Fatal(err)
	}
	c.do("GET", "/"+p.Next, "").wantStatus(t, 410)

	prefix := strings.Repeat("a", maxFilter+1)
	dial(t, addr).do("GET", "/?prefix="+prefix, "").wantStatus(t, 400)
}
