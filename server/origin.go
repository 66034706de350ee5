package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// anyOrigin allows every page.
const anyOrigin = "*"

// origins are the sites whose pages may ask, see [Options].AllowOrigins, or nil.
type origins map[string]string

// allowed is what a browser is told about pages of an origin, or "".
func (o origins) allowed(origin []byte) string {
	if o[anyOrigin] != "" {
		return anyOrigin
	}
	return o[string(origin)]
}

// checkOrigin returns why a text can't be the Origin of a browser's request.
func checkOrigin(text string) error {
	if text == anyOrigin {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "" || text != u.Scheme+"://"+u.Host || text != strings.ToLower(text) || strings.Contains(text, "*"):
		return fmt.Errorf("%q is not an origin, such as https://maps.example or http://localhost:8080, nor *", text)
	case u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443":
		return fmt.Errorf("origin %q must not have the port that goes with %s: browsers leave it out", text, u.Scheme)
	}
	return nil
}

// exposedHeaders are those of an answer that a page may read. The star is for
// X-Meta-... and does not stand for the others in older browsers.
const exposedHeaders = "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Length, Content-Range, ETag, Last-Modified, Link, Retry-After, WWW-Authenticate, *"

// askedHeaders are those of a request that a page may send, beside X-Meta-...,
// in the form in which they are compared. Authorization is never a part of "*".
var askedHeaders = func() map[string]bool {
	all := make(map[string]bool)
	for _, name := range []string{
		"Accept", "Authorization", "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
		"Content-Type", "Cache-Control", "Content-Encoding", "Content-Disposition",
		"Content-Md5", "Content-Digest", "Repr-Digest", "Digest",
	} {
		all[name] = true
	}
	return all
}()

// corsMaxAge is for how many seconds a browser may remember a preflight.
const corsMaxAge = "7200"

// allow tells a browser whether the page that asks may read the answer, whatever
// the answer is. A cache must know that it depends on that.
func (o origins) allow(h http.Header, origin []string) (allowed bool) {
	if o == nil {
		return false
	}
	h.Add("Vary", "Origin")
	if len(origin) != 1 {
		return false
	}
	told := o.allowed([]byte(origin[0]))
	if told == "" {
		return false
	}
	h.Set("Access-Control-Allow-Origin", told)
	h.Set("Access-Control-Expose-Headers", exposedHeaders)
	return true
}

// preflight answers a browser that asks what a page may send. It does so without
// a token, since a browser sends none then. It returns false for other requests.
func (x *exchange) preflight() bool {
	if x.r.Method != http.MethodOptions || !x.fromAllowed || len(x.r.Header["Access-Control-Request-Method"]) == 0 {
		return false
	}
	h := x.w.Header()
	h.Del("Access-Control-Expose-Headers")
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, PUT, DELETE")
	var fields []string
	for name := range strings.SplitSeq(strings.Join(x.r.Header["Access-Control-Request-Headers"], ","), ",") {
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		if askedHeaders[name] || strings.HasPrefix(name, userPrefix) && token(name) {
			fields = append(fields, name)
		}
	}
	if len(fields) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(fields, ", "))
	}
	h.Set("Access-Control-Max-Age", corsMaxAge)
	if x.r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Add("Vary", "Access-Control-Request-Private-Network")
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	x.writeHeader(http.StatusNoContent)
	return true
}
