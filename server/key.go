package server

import (
	"net/url"
	"strings"
)

// pathKind says what the path of a request stands for.
type pathKind int

const (
	keyPath      pathKind = iota // a key; the empty one is the listing
	reservedPath                 // below /-/, which belongs to the server
	badPath                      // not a path, such as "*" or "host:port"
)

const reserved = "/-/"

// splitPath takes the key out of a request's URL: all that follows the first
// slash, percent-decoded exactly once and otherwise as it came. Slashes and
// dots mean nothing here, so `a//b`, `../x` and `a%2Fb` are keys as well.
func splitPath(u *url.URL) (key string, kind pathKind) {
	switch {
	case u.User != nil, u.Scheme != "" && (u.Scheme != "http" && u.Scheme != "https" || u.Host == ""):
		return "", badPath
	case u.Path == "":
		return "", keyPath // http://host without a slash
	}
	// Path is decoded once already. RawPath is there only if it is not what
	// encoding Path again would give; without one, the part looked at here
	// has no encoded bytes.
	written := u.RawPath
	if written == "" {
		written = u.Path
	}
	if strings.HasPrefix(written, reserved) {
		return "", reservedPath
	}
	key, ok := strings.CutPrefix(u.Path, "/")
	if !ok {
		return "", badPath
	}
	return key, keyPath
}

// pathOf is the inverse of splitPath: the URL path of a key. It is plain
// ASCII, and made so that clients and proxies that tidy up URLs leave it alone.
func pathOf(key []byte) string {
	const hex = "0123456789ABCDEF"
	fragile := fragileSlashes(string(key))
	dots := string(key) == "." || string(key) == ".."

	var b strings.Builder
	b.Grow(len(key) + 16)
	b.WriteByte('/')
	for _, c := range key {
		if unreserved(c) && !(c == '.' && dots) || c == '/' && !fragile {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// fragileSlashes reports whether a key would not survive as a path: an empty
// first segment reads as a host name, others get merged, dots get resolved,
// and /-/ is not a key.
func fragileSlashes(key string) bool {
	return strings.HasPrefix("/"+key, reserved) ||
		strings.HasPrefix(key, "/") ||
		strings.Contains(key, "//") ||
		strings.Contains("/"+key+"/", "/./") ||
		strings.Contains("/"+key+"/", "/../")
}

// unreserved reports whether RFC 3986 never gives c a meaning in a URL.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}
