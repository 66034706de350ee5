package server

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// TestDigests promises that a body which is not the one that its digest tells of is
// not stored, nor one whose digest can't be read, and that the others are. Method:
// each field and algorithm, over connections with and without the fast path, with a
// length and in chunks, for values in memory, in files and of no bytes.
func TestDigests(t *testing.T) {
	const blob = 100_000
	for _, slow := range []bool{false, true} {
		store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: blob})
		_, addr := start(t, store, nil, func(s *Server) { s.slow = slow })
		for _, body := range []string{"", "abc", strings.Repeat("x", 2*blob)} {
			for header, want := range digestCases(body) {
				for _, chunked := range []bool{false, true} {
					t.Run(fmt.Sprint(len(body), header, chunked, slow), func(t *testing.T) {
						put(t, store, "k", []byte("before"), nil)
						tag := etagIn(t, store, "k")
						text := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
						if chunked {
							text = "Transfer-Encoding: chunked\r\n\r\n"
							if body != "" {
								text += fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
							}
							text += "0\r\n\r\n"
						}
						head := "PUT /k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + header + "\r\n"
						got, _ := sendAll(t, addr, []byte(head+text), nil, 0)
						if !strings.HasPrefix(string(got), fmt.Sprintf("HTTP/1.1 %d ", want)) {
							t.Errorf("got %.200q, want %d", got, want)
						}
						if changed := etagIn(t, store, "k") != tag; changed != (want == 204) {
							t.Errorf("the value has changed: %v", changed)
						}
					})
				}
			}
		}
	}
}

// digestCases are header fields with the status of a PUT of a body that has them.
func digestCases(body string) map[string]int {
	sums := func(body string) (m, s1, s256, s512 string) {
		encode := base64.StdEncoding.EncodeToString
		a, b, c, d := md5.Sum([]byte(body)), sha1.Sum([]byte(body)), sha256.Sum256([]byte(body)), sha512.Sum512([]byte(body))
		return encode(a[:]), encode(b[:]), encode(c[:]), encode(d[:])
	}
	cases := map[string]int{
		"Repr-Digest: crc32c=:AAAAAA==:":     204, // not known
		"Digest: unixsum=1":                  204,
		"Content-MD5:":                       400,
		"Content-MD5: AAAA":                  400,
		"Content-Digest: ":                   400,
		"Content-Digest: sha-256":            400,
		"Content-Digest: sha-256=::":         400,
		"Content-Digest: sha-256=:!:":        400,
		"Repr-Digest: sha-512=:AAAA:":        400,
		"Digest: sha-256":                    400,
		"Digest: sha-256=:not this:":         400,
		"Want-Repr-Digest: sha-256=1":        204,
		"Content-MD5: AAAAAAAAAAAAAAAAAAAA!": 400,
	}
	for _, of := range []struct {
		body   string
		status int
	}{{body, 204}, {body + "y", 400}} {
		m, s1, s256, s512 := sums(of.body)
		for _, name := range []string{"Content-Digest", "Repr-Digest"} {
			for algorithm, sum := range map[string]string{"md5": m, "sha": s1, "sha-256": s256, "sha-512": s512} {
				cases[fmt.Sprintf("%s: %s=:%s:", name, algorithm, sum)] = of.status
			}
			cases[name+": x=:AAAA:, sha-256=:"+s256+":;a=b"] = of.status
		}
		cases["Content-MD5: "+m] = of.status
		cases["Digest: SHA-256="+s256+",MD5="+m] = of.status
	}
	good, _, _, _ := sums(body)
	bad, _, _, _ := sums(body + "y")
	cases["Repr-Digest: md5=:"+good+":\r\nRepr-Digest: md5=:"+bad+":"] = 400
	return cases
}
