package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// hostileCases are all of them, by subject.
var hostileCases = map[string][]hostileCase{
	"smuggling": smugglingCases, "chunks": chunkCases, "lines": lineCases, "request lines": requestLineCases, "connections": connectionCases,
}

// TestHostile sends what attackers, broken clients and curious people send, and a
// plain request behind it, to a server with the fast path and to one without: at
// once, byte by byte, and behind another plain request. The statuses are those that
// the standard wants, the request behind is answered or the connection is closed as
// it wants, which the last response says, and nothing is ever taken for a request
// that is the body of another one. Nor does any of it get into the log. With
// CROWFLY_FULL each is also cut in two, at every byte.
func TestHostile(t *testing.T) {
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		for _, key := range []string{"k", "hidden", "behind"} {
			put(t, store, key, []byte(key), nil)
		}
		_, addr := start(t, store, &Options{Log: failOnError(t)}, func(s *Server) { s.slow = slow })
		for subject, cases := range hostileCases {
			for _, c := range cases {
				t.Run(fmt.Sprintf("slow %v/%s/%s", slow, subject, c.name), func(t *testing.T) { askHostile(t, store, addr, c) })
			}
		}
	}
}

const (
	firstRequest = "GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n"
	lastRequest  = "GET /behind HTTP/1.1\r\nHost: localhost\r\n\r\n"
)

func askHostile(t *testing.T, store *db.DB, addr string, c hostileCase) {
	text := crlf(c.text) + lastRequest
	var every []int
	for i := 1; i < len(text) && len(text) < 2000; i++ {
		every = append(every, i)
	}
	checkHostile(t, store, addr, c, text, nil)
	checkHostile(t, store, addr, c, text, every)
	if os.Getenv("CROWFLY_FULL") != "" {
		for _, at := range every {
			checkHostile(t, store, addr, c, text, []int{at})
		}
	}
	c.want = "200 " + c.want
	checkHostile(t, store, addr, c, firstRequest+text, nil)
}

// checkHostile asks in one way.
func checkHostile(t *testing.T, store *db.DB, addr string, c hostileCase, text string, cuts []int) {
	t.Helper()
	if got := talkHostile(t, addr, []byte(text), cuts); got != strings.TrimSpace(c.want) {
		t.Errorf("%d bytes in %d pieces: got %q, want %q", len(text), len(cuts)+1, got, c.want)
	}
	stored := false
	for _, key := range hostileKeys {
		stored = store.Delete([]byte(key), nil) == nil || stored
	}
	if stored != strings.Contains(c.want, "201") {
		t.Errorf("%d bytes in %d pieces: stored %v", len(text), len(cuts)+1, stored)
	}
}

// talkHostile sends some bytes and tells what came back. A response may be lost
// when the server closes a connection on which more is coming, so that is tried
// again.
func talkHostile(t *testing.T, addr string, text []byte, cuts []int) (got string) {
	t.Helper()
	for range 20 {
		answers, reset := sendAll(t, addr, text, cuts, 0)
		var bad string
		if got, bad = statuses(answers); bad == "" {
			return got
		}
		if !reset {
			t.Errorf("%s: %q", bad, answers)
			return got
		}
	}
	t.Error("reset again and again")
	return got
}

// statuses are those of all responses, and "end" if the last one is not the one
// to the request behind, and what is bad about them all, or "".
func statuses(answers []byte) (list, bad string) {
	in := bufio.NewReader(bytes.NewReader(answers))
	for closed := false; ; {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			if !closed {
				bad = "the last response does not say that it is the last one"
			}
			return list + "end", bad
		}
		body, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return list, "a body is cut off"
		case closed:
			return list, "a response behind the last one"
		case resp.Header.Get("X-Evil") != "":
			return list, "a response is split"
		case resp.StatusCode == 200 && string(body) == "behind":
			if _, err := in.Peek(1); err == nil {
				bad = "there is more"
			}
			return strings.TrimSpace(list), bad
		}
		closed = resp.Close
		list += fmt.Sprint(resp.StatusCode, " ")
	}
}
