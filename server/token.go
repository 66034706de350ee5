package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
)

// minToken is the length of the shortest token, in characters without the padding
// at its end: a short one can be guessed, and padding never need be.
const minToken = 16

// maxTokenFile is the size of the longest file of tokens, in bytes.
const maxTokenFile = 1 << 20

// Tokens are the bearer tokens that a server takes. They never change, and are
// safe for concurrent use. Those of none, the zero value, let nobody in.
type Tokens struct{ list []grant }

// grant is one of them. What a client has to send is not kept.
type grant struct {
	sum    [sha256.Size]byte
	access access
}

// access is what a token is good for.
type access int

const (
	noAccess access = iota
	mayRead
	mayWrite // and read
)

// ParseTokens reads tokens, one a line, of at least 16 of the characters that a
// bearer token may have (RFC 6750: letters, digits and -._~+/, and = at its end,
// which does not count). Empty lines and those that begin with # are skipped:
//
//	# for the backup
//	ro 6f1dTjJ1MuaYwq3h
//	rw kVb09Qx2mDpRr7ZsE4nc
//
// None at all is an error, since whoever meant to protect a server has not. No
// error shows any part of a token.
func ParseTokens(text string) (*Tokens, error) {
	t := &Tokens{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := t.add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(t.list) == 0 {
		return nil, errors.New("no tokens")
	}
	return t, nil
}

// add takes a line.
func (t *Tokens) add(line string) error {
	fields := strings.Fields(line)
	kinds := map[string]access{"ro": mayRead, "rw": mayWrite}
	if len(fields) != 2 || kinds[fields[0]] == noAccess {
		return errors.New(`want "ro TOKEN" or "rw TOKEN"`)
	}
	text := fields[1]
	if len(strings.TrimRight(text, "=")) < minToken {
		return fmt.Errorf("the token is shorter than %d characters", minToken)
	}
	if !bearer(text) {
		return errors.New("the token has characters other than letters, digits and -._~+/=")
	}
	new := grant{sha256.Sum256([]byte(text)), kinds[fields[0]]}
	for _, old := range t.list {
		if old.sum == new.sum {
			return errors.New("the token is there already")
		}
	}
	t.list = append(t.list, new)
	return nil
}

// bearer reports whether a text has the form of a bearer token.
func bearer(text string) bool {
	text = strings.TrimRight(text, "=")
	for i := range len(text) {
		if c := text[i]; !unreserved(c) && c != '+' && c != '/' {
			return false
		}
	}
	return text != ""
}

// ReadTokens reads tokens from a file. It refuses one that others than the owner
// may read or write, except on Windows, which has no such bits.
func ReadTokens(path string) (*Tokens, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s: others than the owner can get at the tokens, its mode is %04o: chmod 600 %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err == nil && len(text) > maxTokenFile {
		err = fmt.Errorf("%s: more than %d bytes", path, maxTokenFile)
	}
	if err != nil {
		return nil, err
	}
	tokens, err := ParseTokens(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return tokens, nil
}

// access is what the value of an Authorization field is good for. It takes the
// same time whichever token it is, and for one that is wrong.
func (t *Tokens) access(authorization []byte) access {
	sum := sha256.Sum256(credentials(authorization))
	found := int(noAccess)
	for i := range t.list {
		same := subtle.ConstantTimeCompare(sum[:], t.list[i].sum[:])
		found = subtle.ConstantTimeSelect(same, int(t.list[i].access), found)
	}
	return access(found)
}

// credentials are the token in an Authorization field, or nothing, which is no
// token.
func credentials(authorization []byte) []byte {
	const scheme = "Bearer"
	if len(authorization) <= len(scheme) || !bytes.EqualFold(authorization[:len(scheme)], []byte(scheme)) || authorization[len(scheme)] != ' ' {
		return nil
	}
	return bytes.TrimLeft(authorization[len(scheme):], " ")
}

// authorize refuses a request for what it has in its Authorization field, or
// returns the zero refusal. It decides for net/http and for the fast path, and
// nothing else does: as soon as there are tokens it is deny by default.
func (h *Handler) authorize(method string, authorization []byte) refusal {
	tokens := h.tokens.Load()
	if tokens == nil {
		return refusal{}
	}
	switch access := tokens.access(authorization); {
	case access == noAccess:
		return refusal{http.StatusUnauthorized, "a token is needed: Authorization: Bearer TOKEN"}
	case access < mayWrite && !reading(method):
		return refusal{http.StatusForbidden, "this token is for reading only"}
	}
	return refusal{}
}

// reading reports whether a method changes nothing.
func reading(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// needsNoToken has the paths below /-/ that anybody may ask, for those who watch
// whether a server is up.
var needsNoToken = map[string]bool{
	reserved + "healthz": true,
	reserved + "readyz":  true,
}

// admit refuses a request that may not be here at all, or returns the zero
// refusal.
func (x *exchange) admit() refusal {
	_, kind := splitPath(x.r.URL)
	switch {
	case !validHost([]byte(x.r.Host)):
		return badHost
	case x.tokens.Load() == nil && !x.isOwnHost(x.r):
		return misdirected
	case kind == reservedPath && needsNoToken[x.r.URL.EscapedPath()] && reading(x.r.Method):
		return refusal{}
	}
	return x.authorize(x.r.Method, []byte(onlyLine(x.r.Header["Authorization"])))
}
