package server

import (
	"iter"
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
	version  db.Version
	etag     string
	modified time.Time // zero if unknown
}

func validatorsOf(v *db.Value, m *db.Metadata) validators {
	return validators{version: v.Version(), etag: etagOf(v.Version()), modified: m.ModTime}
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

	if list := listed(r, "If-Match"); list != "" {
		if !v.matches(list, strong) {
			return refused
		}
	} else if t, ok := v.date(r, "If-Unmodified-Since"); ok && v.modified.Unix() > t.Unix() {
		return refused
	}

	if list := listed(r, "If-None-Match"); list != "" {
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

// required turns the conditions of a write, which v has met, into what must
// still be so when it takes place:
//
//	If-None-Match: *         the key has no value
//	If-None-Match: tags      nothing: a tag that has gone never comes back
//	If-Match: tags           the version that matched, for the same reason
//	If-Match: *              the version seen
//	If-Unmodified-Since      the version seen, or no value if there was none
//
// All but the last two are exact. There the standard would allow for a value
// that was written meanwhile, if there is one, or if the date is in the future.
// Here that is refused: the store can't judge it together with the write, and
// the body is gone when it can't be judged again. DELETE needs no value to be
// required, since it fails without one.
func (v validators) required(r *http.Request) *db.PutOptions {
	match := listed(r, "If-Match")
	_, err := http.ParseTime(r.Header.Get("If-Unmodified-Since"))
	dated := err == nil && match == ""
	switch {
	case r.Method == http.MethodDelete && anyTag(match):
		return &db.PutOptions{}
	case match != "", dated && v.etag != "":
		return &db.PutOptions{IfMatch: &v.version}
	case dated, anyTag(listed(r, "If-None-Match")):
		return &db.PutOptions{IfAbsent: true}
	}
	return &db.PutOptions{}
}

// listed is a header that is a list, in one line.
func listed(r *http.Request, name string) string { return strings.Join(r.Header[name], ",") }

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
// have it.
func (v validators) matches(list string, strong bool) bool {
	if v.etag == "" {
		return false
	}
	for tag := range tags(list) {
		if !strong {
			tag = strings.TrimPrefix(tag, "W/")
		}
		if tag == v.etag || tag == "*" {
			return true
		}
	}
	return false
}

// anyTag reports whether a list matches every value there can be.
func anyTag(list string) bool {
	for tag := range tags(list) {
		if tag == "*" {
			return true
		}
	}
	return false
}

// tags are the entity tags in a list, read as far as it makes sense. A "*" is
// the last one.
func tags(list string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			list = strings.TrimLeft(list, " \t,")
			if strings.HasPrefix(list, "*") {
				yield("*")
				return
			}
			tag, rest, ok := scanTag(list)
			if !ok || !yield(tag) {
				return
			}
			list = rest
		}
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
