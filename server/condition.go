package server

import (
	"net/http"
	"strings"
	"time"

	"github.com/crowfly/crowfly/db"
)

// etagOf is the strong entity tag of a value.
func etagOf(v db.Version) string { return `"` + v.String() + `"` }

// validators are what conditions of a request are held against. The zero value
// is a key without a value.
type validators struct {
	etag     string
	modified time.Time // zero if unknown
}

func validatorsOf(v *db.Value, m *db.Metadata) validators {
	return validators{etag: etagOf(v.Version()), modified: m.ModTime}
}

// verdict is what the conditions of a request come to.
type verdict int

const (
	proceed     verdict = iota
	notModified         // 304
	refused             // 412
)

// evaluate holds the conditions of a request against the present value, in the
// order of RFC 9110, section 13.2.2.
func (v validators) evaluate(r *http.Request) verdict {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead

	if list := strings.Join(r.Header["If-Match"], ","); list != "" {
		if !v.matches(list, strong) {
			return refused
		}
	} else if t, ok := v.date(r, "If-Unmodified-Since"); ok && v.modified.Unix() > t.Unix() {
		return refused
	}

	if list := strings.Join(r.Header["If-None-Match"], ","); list != "" {
		switch {
		case !v.matches(list, weak):
			return proceed
		case read:
			return notModified
		default:
			return refused
		}
	}
	if t, ok := v.date(r, "If-Modified-Since"); ok && read && v.modified.Unix() <= t.Unix() {
		return notModified
	}
	return proceed
}

// rangeApplies evaluates If-Range: a range of a value other than the one the
// client has the rest of would be of no use to it.
func (v validators) rangeApplies(r *http.Request) bool {
	value := r.Header.Get("If-Range")
	if value == "" {
		return true
	}
	if tag, _, ok := scanTag(value); ok {
		return tag == v.etag
	}
	t, ok := v.date(r, "If-Range")
	return ok && v.modified.Unix() == t.Unix()
}

// date returns the date in a header. A date that can't be read or compared is
// no condition.
func (v validators) date(r *http.Request, name string) (time.Time, bool) {
	if v.modified.IsZero() {
		return time.Time{}, false
	}
	t, err := http.ParseTime(r.Header.Get(name))
	return t, err == nil
}

// How two entity tags are compared.
const (
	strong = true
	weak   = false
)

// matches reports whether the tag is in a list as If-Match and If-None-Match
// have it. The list is read as far as it makes sense.
func (v validators) matches(list string, strong bool) bool {
	if v.etag == "" {
		return false
	}
	for {
		list = strings.TrimLeft(list, " \t,")
		if strings.HasPrefix(list, "*") {
			return true
		}
		tag, rest, ok := scanTag(list)
		if !ok {
			return false
		}
		if !strong {
			tag = strings.TrimPrefix(tag, "W/")
		}
		if tag == v.etag {
			return true
		}
		list = rest
	}
}

// scanTag cuts the entity tag off that s begins with.
func scanTag(s string) (tag, rest string, ok bool) {
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if !strings.HasPrefix(s[start:], `"`) {
		return "", "", false
	}
	n := strings.IndexFunc(s[start+1:], func(c rune) bool {
		return c == '"' || c <= ' ' || c == 0x7f
	})
	end := start + 1 + n
	if n < 0 || s[end] != '"' {
		return "", "", false
	}
	return s[:end+1], s[end+1:], true
}
