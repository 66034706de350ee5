package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRefusedUploads promises that a client which sends all of a body before it reads,
// as proxies do, gets the answer of an upload that was refused before the body came,
// with the right status. Method: bodies that no buffer of the kernel holds, on all the
// ways in which a request can be answered.
func TestRefusedUploads(t *testing.T) {
	const size = 12 << 20
	body := bytes.Repeat([]byte("x"), 256<<10)
	for _, c := range []struct {
		head   string
		status int
	}{
		{"PUT /k HTTP/1.1\r\nHost: localhost\r\n", 401},
		{"PUT /k?x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRW + "\r\n", 400},
		{"PUT /k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRO + "\r\n", 403},
		{"PUT /there HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: *\r\nAuthorization: Bearer " + tokenRW + "\r\n", 412},
		{"PUT /k HTTP/1.1\r\nHost: localhost\r\nExpect: something\r\nAuthorization: Bearer " + tokenRW + "\r\n", 417},
		{"PUT /k HTTP/1.1\r\nHost: localhost\r\nX-Copy-From: a\r\nAuthorization: Bearer " + tokenRW + "\r\n", 501},
		{"PUT /-/none HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRW + "\r\n", 404},
		{"POST /k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRW + "\r\n", 405},
		{"BREW /k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRW + "\r\n", 501},
		{"PUT /large HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + tokenRW + "\r\n", 413},
		{"PUT /k HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n", 400},
		{"PUT /k HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("x", 40<<10) + "\r\n", 431},
	} {
		for _, way := range []string{"fast", "slow", "encrypted"} {
			t.Run(fmt.Sprint(c.status, way), func(t *testing.T) {
				t.Parallel()
				store := openStore(t)
				put(t, store, "there", []byte("v"), nil)
				o := &Options{Tokens: exampleTokens(t), Log: failOnError(t)}
				if c.status == 413 {
					o.MaxBody = 1 << 20
				}
				var conn net.Conn
				if way == "encrypted" {
					_, addr, config := startTLS(t, store, *o)
					secret, _ := dialTLS(t, addr, config)
					conn = secret
				} else {
					_, addr := start(t, store, o, func(s *Server) { s.slow = way == "slow" })
					plain, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					defer plain.Close()
					conn = plain
				}
				conn.SetDeadline(time.Now().Add(time.Minute))
				fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n", c.head, size)
				for range size / len(body) {
					if _, err := conn.Write(body); err != nil {
						t.Fatalf("while the body is sent: %v", err)
					}
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != c.status {
					t.Errorf("status %s, want %d", resp.Status, c.status)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Errorf("the body of the answer: %v", err)
				}
			})
		}
	}
}
