package server

import (
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/crowfly/crowfly/db"
)

// etagOf is the strong entity tag of a value.
func etagOf(v db.Version) string { return string(appendTag(nil, v)) }

func appendTag(b []byte, v db.Version) []byte { return append(v.Append(append(b, '"')), '"') }

// validators are what conditions of a request are held against. The zero value
// is a key without a value.
type validators struct {
	version  db.Version
	modified time.Time // zero if unknown
}

func validatorsOf(v *db.Lent, m *db.Metadata) validators {
	current := validators{version: v.Version()}
	if validDate(m.ModTime, time.Now()) {
		current.modified = m.ModTime
	}
	return current
}

// validDate reports whether the modification time of a value may stand for the
// value. It need not have been set by this server: an import takes that of the
// file. One of 1970 or before says that there is none, as in archives that are
// built to be the same each time; net/http and Caddy do not send it either. One
// in the future must not be sent (RFC 9110, section 8.8.2.1).
func validDate(modified, now time.Time) bool {
	return modified.Unix() > 0 && modified.Unix() <= now.Unix()
}

// absent reports whether there is no value: versions begin at 1.
func (v validators) absent() bool { return v.version == db.Version{} }

// verdict is what the conditions of a request come to.
type verdict int

const (
	proceed     verdict = iota
	notModified         // 304
	refused             // 412
)

// evaluate holds the conditions of a request against the present value, in the
// order of RFC 9110, section 13.2.2.
func (v validators) evaluate(q *request) verdict {
	if q.ifMatch != "" {
		if !v.matches(q.ifMatch, strong) {
			return refused
		}
	} else if q.ifUnmodifiedSince != "" && !v.unmodifiedSince(q) {
		return refused
	}

	if q.ifNoneMatch != "" {
		switch {
		case !v.matches(q.ifNoneMatch, weak):
			return proceed
		case q.reads():
			return notModified
		default:
			return refused
		}
	}
	if t, ok := v.date(q.ifModifiedSince); ok && q.reads() && v.unchangedSince(t, time.Now()) {
		return notModified
	}
	return proceed
}

// unchangedSince evaluates If-Modified-Since. A value that an import has replaced by
// an older one has changed as well, so only the very date that was sent with the
// value will do, or one in the future, which was sent with none.
func (v validators) unchangedSince(t, now time.Time) bool {
	return v.modified.Unix() == t.Unix() || t.After(now)
}

// unmodifiedSince evaluates If-Unmodified-Since. What can't be judged is no
// condition of a read, but must not let a write pass that would replace a value.
func (v validators) unmodifiedSince(q *request) bool {
	t, ok := v.date(q.ifUnmodifiedSince)
	if !ok {
		return q.reads() || v.absent()
	}
	return v.modified.Unix() <= t.Unix()
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
func (v validators) required(q *request) *db.PutOptions {
	_, dated := parseDate(q.ifUnmodifiedSince, time.Now())
	dated = dated && q.ifMatch == ""
	switch {
	case q.method == http.MethodDelete && anyTag(q.ifMatch):
		return &db.PutOptions{}
	case q.ifMatch != "", dated && !v.absent():
		return &db.PutOptions{IfMatch: &v.version}
	case dated, anyTag(q.ifNoneMatch):
		return &db.PutOptions{IfAbsent: true}
	}
	return &db.PutOptions{}
}

// rangeApplies evaluates If-Range: a range of a value other than the one the
// client has the rest of would be of no use to it. A date is never good enough.
// It would have to be known that there was no other value in the same second,
// and a client that has the tag must not use one (RFC 9110, section 13.1.5).
func (v validators) rangeApplies(q *request) bool {
	return q.ifRange == "" || q.ifRange == etagOf(v.version)
}

// date reads the date of a condition. One that is not there, or can't be read or
// compared, is no condition.
func (v validators) date(text string) (time.Time, bool) {
	if text == "" || v.modified.IsZero() {
		return time.Time{}, false
	}
	return parseDate(text, time.Now())
}

// How two entity tags are compared.
const (
	strong = true
	weak   = false
)

// matches reports whether the tag is in a list as If-Match and If-None-Match
// have it.
func (v validators) matches(list string, strong bool) bool {
	if v.absent() {
		return false
	}
	etag := etagOf(v.version)
	for tag := range tags(list) {
		if !strong {
			tag = strings.TrimPrefix(tag, "W/")
		}
		if tag == etag || tag == "*" {
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
			if rest, ok := strings.CutPrefix(list, "*"); ok {
				if rest = strings.TrimLeft(rest, " \t"); rest == "" || rest[0] == ',' {
					yield("*")
				}
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
