package server

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// hesitate sends a PUT up to where its conditions have been judged and its body
// is asked for. It returns false, with the response, if it is not.
func hesitate(c *wire, key string, body string, header ...string) (got reply, asked bool) {
	c.t.Helper()
	c.send(fmt.Sprintf("PUT /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n",
		key, len(body), lines(header)))
	line, err := c.in.Peek(len("HTTP/1.1 100"))
	if err != nil {
		c.t.Fatal(err)
	}
	if string(line) != "HTTP/1.1 100" {
		return c.receive("PUT"), false
	}
	readLine(c.t, c.in)
	readLine(c.t, c.in)
	return got, true
}

// TestOnlyOneCreates: all of them find no value, and then send theirs at once.
func TestOnlyOneCreates(t *testing.T) {
	const clients = 1000
	store := openStore(t)
	s, addr := start(t, store, nil)
	conns := make([]*wire, clients)
	for i := range conns {
		conns[i] = dial(t, addr)
		if got, asked := hesitate(conns[i], "k", "1234", "If-None-Match: *"); !asked {
			t.Fatalf("client %d: %s", i, got.Status)
		}
	}
	var wg sync.WaitGroup
	var winner atomic.Int64
	for i, c := range conns {
		wg.Go(func() {
			fmt.Fprintf(c, "%04d", i)
			resp, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case 201:
				winner.Store(int64(i))
			case 412:
			default:
				t.Errorf("client %d: %s", i, resp.Status)
			}
		})
	}
	wg.Wait()
	want := Requests{Success: 1, ClientError: clients - 1}
	eventually(t, "all are counted", func() bool { return s.Stats().Put == want })
	if got, err := store.Get(nil, []byte("k")); err != nil || string(got) != fmt.Sprintf("%04d", winner.Load()) {
		t.Errorf("stored %q, %v; client %d was told it had won", got, err, winner.Load())
	}
}

// TestMeanwhile: what happens between the first look at the conditions and the
// write decides. ETAG and DATE are those of the value there is at first.
func TestMeanwhile(t *testing.T) {
	tomorrow := time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		present                            bool // at first
		header                             string
		alone, written, deleted, recreated int // status, by what happens meanwhile
	}{
		{true, "", 204, 204, 201, 204},
		{true, "If-Match: ETAG", 204, 412, 412, 412},
		{true, `If-Match: "x", ETAG`, 204, 412, 412, 412},
		{true, "If-Match: *", 204, 412, 412, 412},
		{true, `If-None-Match: "x"`, 204, 204, 201, 204},
		{true, "If-Unmodified-Since: DATE", 204, 412, 412, 412},
		{true, "If-Unmodified-Since: " + tomorrow, 204, 412, 412, 412},
		{true, "If-Match: ETAG\r\nIf-Unmodified-Since: " + dayBefore, 204, 412, 412, 412},
		{true, "If-Match: ETAG\r\nIf-None-Match: \"x\"", 204, 412, 412, 412},
		{false, "", 201, 204, 201, 204},
		{false, "If-None-Match: *", 201, 412, 201, 412},
		{false, `If-None-Match: "x", *`, 201, 412, 201, 412},
		{false, `If-None-Match: "x"`, 201, 204, 201, 204},
		{false, "If-Unmodified-Since: DATE", 201, 412, 201, 412},
	} {
		for i, status := range []int{c.alone, c.written, c.deleted, c.recreated} {
			t.Run(fmt.Sprintf("%v %s %d", c.present, c.header, i), func(t *testing.T) {
				store := openStore(t)
				_, addr := start(t, store, nil)
				header := strings.ReplaceAll(c.header, "DATE", exampleDate)
				if c.present {
					put(t, store, "k", []byte("before"), &db.Metadata{ModTime: exampleTime})
					header = strings.ReplaceAll(header, "ETAG", etagIn(t, store, "k"))
				}
				conn := dial(t, addr)
				var list []string
				if header != "" {
					list = []string{header}
				}
				if got, asked := hesitate(conn, "k", "mine", list...); !asked {
					t.Fatalf("refused at first: %s", got.Status)
				}
				if i&1 != 0 {
					put(t, store, "k", []byte("theirs"), &db.Metadata{ModTime: time.Now()})
				}
				if i&2 != 0 {
					if err := store.Delete([]byte("k"), nil); err != nil && (c.present || i&1 != 0) {
						t.Fatal(err)
					}
				}
				if i == 3 { // the same bytes again are not the same value
					put(t, store, "k", []byte("before"), &db.Metadata{ModTime: time.Now()})
				}
				conn.send("mine")
				got := conn.receive("PUT")
				got.wantStatus(t, status)
				stored, err := store.Get(nil, []byte("k"))
				if (string(stored) == "mine") != (status < 300) {
					t.Errorf("stored %q, %v", stored, err)
				}
			})
		}
	}
}

// TestDeleteRequires: a DELETE has no body to wait for, so what it demands of
// the store is looked at.
func TestDeleteRequires(t *testing.T) {
	v := validators{version: db.Version{Sum: 1, Seq: 2}, modified: exampleTime}
	etag := etagOf(v.version)
	for header, want := range map[string]bool{ // this very version?
		"If-Match: " + etag: true, `If-Match: "x", ` + etag: true, "If-Match: *": false, `If-Match: "x", *`: false,
		`If-None-Match: "x"`: false, "If-Unmodified-Since: " + exampleDate: true, "If-Unmodified-Since: x": false,
	} {
		name, value, _ := strings.Cut(header, ": ")
		q := requestOf(&http.Request{Method: "DELETE", Header: http.Header{name: {value}}}, "k")
		o := v.required(&q)
		if o.IfAbsent || (o.IfMatch != nil) != want || want && *o.IfMatch != v.version {
			t.Errorf("%s: %+v", header, o)
		}
	}
}

// TestCounter: clients read a number, add one and write it back if nothing has
// changed; one of them takes it away. Nothing that was added gets lost.
func TestCounter(t *testing.T) {
	const clients, rounds = 8, 40
	store := openStore(t)
	_, addr := start(t, store, nil)
	var wg sync.WaitGroup
	var added, taken atomic.Int64
	for i := range clients {
		c := dial(t, addr)
		wg.Go(func() {
			for done := 0; done < rounds && !t.Failed(); {
				status, n, tag := askFor(t, c, "GET", "", "")
				var counted *atomic.Int64
				add := int64(1)
				switch {
				case status == 404:
					counted = &added
					status, _, _ = askFor(t, c, "PUT", "If-None-Match: *", "1")
				case i == 0:
					counted, add = &taken, n
					status, _, _ = askFor(t, c, "DELETE", "If-Match: "+tag, "")
				default:
					counted = &added
					status, _, _ = askFor(t, c, "PUT", "If-Match: "+tag, fmt.Sprint(n+1))
				}
				switch status {
				case 201, 204:
					counted.Add(add)
					done++
				case 404, 412:
				default:
					t.Errorf("status %d", status)
				}
			}
		})
	}
	wg.Wait()
	c := dial(t, addr)
	status, left, _ := askFor(t, c, "GET", "", "")
	if status == 404 {
		left = 0
	}
	if added.Load() != taken.Load()+left {
		t.Errorf("%d were added, %d taken away, and %d are left", added.Load(), taken.Load(), left)
	}
}

// askFor is wire.do for goroutines that must not end the test, of a key whose
// value is a number.
func askFor(t *testing.T, c *wire, method, header, body string) (status int, n int64, tag string) {
	if header != "" {
		header += "\r\n"
	}
	fmt.Fprintf(c, "%s /k HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", method, header, len(body), body)
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		t.Error(err)
		return 0, 0, ""
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	n, _ = strconv.ParseInt(string(text), 10, 64)
	return resp.StatusCode, n, resp.Header.Get("Etag")
}
