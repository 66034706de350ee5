package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	tokenRO = "ro-6f1dTjJ1MuaYwq3h"
	tokenRW = "rw-kVb09Qx2mDpRr7Zs"
)

// exampleTokens has one of each kind, and others before and behind them.
func exampleTokens(t *testing.T) *Tokens {
	t.Helper()
	tokens, err := ParseTokens("rw other-token-000000\nro " + tokenRO + "\nrw " + tokenRW + "\nro other-token-111111\n")
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// TestParseTokens: what is taken and what is not, and that no error shows a
// token.
func TestParseTokens(t *testing.T) {
	const a, b = "0123456789abcdef", "AZaz09-._~+/xyz0=="
	for text, want := range map[string][2]access{ // of a and of b+"="
		"ro " + a:        {mayRead, noAccess},
		"rw " + a + "\n": {mayWrite, noAccess},
		"# tokens\n\n \t rw\t" + a + " \r\nro " + b + "=\n#": {mayWrite, mayRead},
	} {
		tokens, err := ParseTokens(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := [2]access{tokens.access([]byte("Bearer " + a)), tokens.access([]byte("Bearer " + b + "="))}
		if got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"":                                  "no tokens",
		"# ro " + a + "\n\n":                "no tokens",
		a:                                   "line 1: want",
		"\nro " + a + " " + a:               "line 2: want",
		"read " + a:                         "want",
		"RO " + a:                           "want",
		"ro":                                "want",
		"ro " + a[1:]:                       "shorter than 16",
		"rw x":                              "shorter than 16",
		"ro " + a[1:] + "=":                 "shorter than 16",
		"rw x===============":               "shorter than 16",
		"ro \"" + a + "\"":                  "characters other than",
		"ro " + a + ":":                     "characters other than",
		"ro " + a + "=a":                    "characters other than",
		"ro " + a + "\xff":                  "characters other than",
		"ro ====================":           "shorter than 16",
		"ro " + a + "\nrw " + a:             "line 2: the token is there already",
		"ro " + b + "=\n#\nro " + b + "=\n": "line 3: the token is there already",
	} {
		tokens, err := ParseTokens(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
			continue
		}
		if tokens != nil || strings.Contains(err.Error(), a[1:8]) || strings.Contains(err.Error(), b) {
			t.Errorf("%q: %+v, and the error shows a token: %v", text, tokens, err)
		}
	}
}

// TestReadTokens: a file that others may read or write is refused, whatever is
// in it, and one that only the owner may is not.
func TestReadTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	if _, err := ReadTokens(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("ro "+tokenRO+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode := range os.FileMode(0o1000) {
		if mode&0o400 == 0 { // root could read it all the same
			continue
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		tokens, err := ReadTokens(path)
		if private := mode&0o077 == 0 || runtime.GOOS == "windows"; (err == nil) != private {
			t.Errorf("mode %04o: %v", mode, err)
		} else if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%04o: chmod 600 %s", mode, path)) {
			t.Errorf("mode %04o: %v does not tell what to do", mode, err)
		} else if err == nil && len(tokens.list) != 1 {
			t.Errorf("mode %04o: %d tokens", mode, len(tokens.list))
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"ro short": "line 1: ",
		strings.Repeat("# x\n", maxTokenFile/4+1): "more than",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTokens(path); err == nil || !strings.HasPrefix(err.Error(), path+": "+want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// authorizations are Authorization lines, or none, and what they are good for.
var authorizations = map[string]access{
	"Authorization: Bearer " + tokenRO:            mayRead,
	"Authorization: Bearer " + tokenRW:            mayWrite,
	"authorization:  bEARER   " + tokenRW + " \t": mayWrite,
	"":                                                                          noAccess,
	"Authorization:":                                                            noAccess,
	"Authorization: " + tokenRW:                                                 noAccess,
	"Authorization: Bearer":                                                     noAccess,
	"Authorization: Bearer" + tokenRW:                                           noAccess,
	"Authorization: Bearer\t" + tokenRW:                                         noAccess,
	"Authorization: Bearer " + tokenRW[1:]:                                      noAccess,
	"Authorization: Bearer " + tokenRW + "x":                                    noAccess,
	"Authorization: Bearer " + strings.ToUpper(tokenRW):                         noAccess,
	"Authorization: Bearer " + tokenRW + " " + tokenRO:                          noAccess,
	"Authorization: Bearer " + tokenRW + ", Bearer " + tokenRW:                  noAccess,
	"Authorization: Bearer rw":                                                  noAccess,
	"Authorization: Bearer rw " + tokenRW:                                       noAccess,
	"Authorization: Basic " + tokenRW:                                           noAccess,
	"Authorization: Bearer \xff" + tokenRW:                                      noAccess,
	"Authorization: Bearer " + tokenRW + "\r\nAuthorization: Bearer wrong":      noAccess,
	"Authorization: Bearer " + tokenRW + "\r\nAuthorization: ":                  noAccess,
	"Authorization: Bearer " + tokenRO + "\r\nAuthorization: Bearer " + tokenRW: noAccess,
	"X-Authorization: Bearer " + tokenRW:                                        noAccess,
	"Proxy-Authorization: Bearer " + tokenRW:                                    noAccess,
	"Cookie: Authorization=Bearer " + tokenRW:                                   noAccess,
}

// TestAuthorization: every kind of request with every kind of token, right,
// wrong, missing and twice, on both ways, by the status and by what is stored
// afterwards.
func TestAuthorization(t *testing.T) {
	requests := []struct {
		method, target string
		write          bool
		good           int
	}{
		{"GET", "/k", false, 200}, {"HEAD", "/k", false, 200}, {"GET", "/none", false, 404}, {"GET", "/k?x", false, 200},
		{"GET", "/", false, 200}, {"GET", "/-/stats", false, 200}, {"HEAD", "/-/stats", false, 200}, {"GET", "/-/x", false, 404},
		{"GET", "/-/healthz/", false, 404}, {"GET", "/%2D/healthz", false, 404}, {"GET", "/x/-/healthz", false, 404},
		{"GET", "//-/healthz", false, 404}, {"GET", "/-/healthz%2f", false, 404}, {"GET", "*", false, 400},
		{"OPTIONS", "/k", false, 204}, {"OPTIONS", "*", false, 204},
		{"PUT", "/new", true, 201}, {"PUT", "/k", true, 204}, {"DELETE", "/k", true, 204}, {"PUT", "/-/healthz", true, 405},
		{"POST", "/-/compact", true, 200}, {"POST", "/k", true, 405}, {"PATCH", "/k", true, 405}, {"get", "/k", true, 501}, {"TRACE", "/k", true, 405},
	}
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		_, addr := start(t, store, &Options{Tokens: exampleTokens(t), Log: failOnError(t)}, func(s *Server) { s.slow = slow })
		for line, access := range authorizations {
			for _, q := range requests {
				put(t, store, "k", []byte("v"), nil)
				want := q.good
				switch {
				case access == noAccess:
					want = 401
				case q.write && access == mayRead:
					want = 403
				}
				body := ""
				if q.method == "PUT" {
					body = "new"
				}
				var header []string
				if line != "" {
					header = []string{line}
				}
				got := dial(t, addr).do(q.method, q.target, body, header...)
				if got.StatusCode != want {
					t.Errorf("%s %s with %q: %s, want %d", q.method, q.target, line, got.Status, want)
				}
				checkRefusal(t, q.method, got)
				if refused := want == 401 || want == 403; refused && q.method != "HEAD" && bytes.Contains(got.body, []byte("rw-")) {
					t.Errorf("the answer shows a token: %s", got.body)
				}
				value, err := store.Get(nil, []byte("k"))
				_, absent := store.Get(nil, []byte("new"))
				if changed := err != nil || string(value) != "v" || absent == nil; changed && want != q.good {
					t.Fatalf("%s %s with %q has changed the store", q.method, q.target, line)
				}
				_ = store.Delete([]byte("new"), nil)
			}
		}
	}
}

// checkRefusal: 401 says how to do better, and nothing else does.
func checkRefusal(t *testing.T, method string, got reply) {
	t.Helper()
	want := "-"
	if got.StatusCode == 401 {
		want = "Bearer"
	}
	checkHeader(t, got, "Www-Authenticate", want)
	if got.StatusCode >= 400 && method != "HEAD" {
		checkProblem(t, got)
	}
}

// TestHealthNeedsNoToken: whoever watches the server asks without one, and can
// do nothing else below these paths.
func TestHealthNeedsNoToken(t *testing.T) {
	_, addr := start(t, openStore(t), &Options{Tokens: exampleTokens(t)})
	for _, path := range []string{"/-/healthz", "/-/readyz"} {
		for _, method := range []string{"GET", "HEAD"} {
			if got := dial(t, addr).do(method, path, ""); got.StatusCode == 401 {
				t.Errorf("%s %s: %s", method, path, got.Status)
			}
		}
		dial(t, addr).do("POST", path, "").wantStatus(t, 401)
		dial(t, addr).do("GET", path+"x", "").wantStatus(t, 401)
	}
}

// TestNoTokensLetNobodyIn: whoever gives tokens that are none has not left the
// door open.
func TestNoTokensLetNobodyIn(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	_, addr := start(t, store, &Options{Tokens: &Tokens{}})
	for _, header := range []string{"Accept: */*", "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Bearer x"} {
		dial(t, addr).do("GET", "/k", "", header).wantStatus(t, 401)
	}
}

// TestHandlerAuthorizes: a handler in another server asks for tokens as well.
func TestHandlerAuthorizes(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	h := NewHandler(store, &Options{Tokens: exampleTokens(t)})
	for value, status := range map[string]int{"": 401, "Bearer x": 401, "Bearer " + tokenRO: 200} {
		if w := ask(h, "GET", "http://example.com/k", http.Header{"Authorization": {value}}, ""); w.Code != status {
			t.Errorf("%q: %d", value, w.Code)
		}
	}
	if w := ask(h, "DELETE", "/k", http.Header{"Authorization": {"Bearer " + tokenRO}}, ""); w.Code != 403 {
		t.Errorf("DELETE: %d", w.Code)
	}
}

// TestRefusedUnread: a body that may not be stored is not asked for.
func TestRefusedUnread(t *testing.T) {
	_, addr := start(t, openStore(t), &Options{Tokens: exampleTokens(t)})
	for header, status := range map[string]int{"Accept: */*": 401, "Authorization: Bearer " + tokenRO: 403} {
		got, asked := hesitate(dial(t, addr), "k", "value", header)
		if asked {
			t.Errorf("%s: the body is asked for", header)
			continue
		}
		got.wantStatus(t, status)
	}
}

// TestTokensAreNotLogged: not by failures, nor by panics on either way.
func TestTokensAreNotLogged(t *testing.T) {
	var log logText
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		s, addr := start(t, store, &Options{Tokens: exampleTokens(t), Log: slog.New(slog.NewTextHandler(&log, nil))}, func(s *Server) {
			s.slow = slow
			s.handler.now = func() time.Time { panic("on purpose") }
		})
		c := dial(t, addr)
		c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRW + "\r\nContent-Length: 1\r\n\r\nv")
		if n, _ := io.Copy(io.Discard, c.in); n != 0 {
			t.Errorf("%d bytes", n)
		}
		eventually(t, "the panic is counted", func() bool { return s.Stats().Put.ServerError == 1 })
		dial(t, addr).do("GET", "/k", "", "Authorization: Bearer "+tokenRW+"x").wantStatus(t, 401)
		fmt.Fprintf(&log, "%v %+v", s.handler.tokens.Load(), *s.handler.tokens.Load())
	}
	if text := log.String(); strings.Count(text, "on purpose") < 2 || strings.Contains(text, tokenRW) || strings.Contains(text, tokenRO) {
		t.Errorf("log: %s", text)
	}
}

// TestTokensStayOnFastPath: a GET with a token is as plain as one without.
func TestTokensStayOnFastPath(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", noise(1000, 1), nil)
	s, addr := start(t, store, &Options{Tokens: exampleTokens(t)})
	c := dial(t, addr)
	request := []byte("GET /k HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer " + tokenRO + "\r\n\r\n")
	answer := make([]byte, askOnce(t, c, request))
	n := testing.AllocsPerRun(500, func() { askAgain(t, c, request, answer) })
	if n != 0 {
		t.Errorf("allocates %v times", n)
	}
	eventually(t, "all were on the fast path", func() bool { return s.Stats().Fast == 502 })
	if got := s.Stats(); got.HandedOver != 0 || got.Get.Success != 502 {
		t.Errorf("%+v", got)
	}
}

// askAgain asks for what askOnce has got.
func askAgain(t *testing.T, c net.Conn, request, answer []byte) {
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
}
