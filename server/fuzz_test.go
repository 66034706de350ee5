package server

import (
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// FuzzRange: whatever the header is, what it comes to is what a slow and simple
// reading of RFC 9110, section 14, says: the parts have the bytes that were asked
// for and no others, once each, in the order of the request.
func FuzzRange(f *testing.F) {
	for _, c := range rangeCases {
		f.Add(c.header, uint16(1000))
		f.Add(c.header, uint16(5))
	}
	f.Fuzz(func(t *testing.T, header string, size uint16) {
		parts, kind := parseRange(nil, header, int64(size))
		if (kind == partOfValue) != (len(parts) > 0) || len(parts) > maxRanges {
			t.Fatalf("%q of %d: %d parts, kind %d", header, size, len(parts), kind)
		}
		asked, want := modelRange(header, int64(size))
		if kind != want {
			t.Fatalf("%q of %d: kind %d, want %d", header, size, kind, want)
		}
		checkSpans(t, parts, asked, int64(size))
		checkContent(t, header, int64(size), kind)
	})
}

var (
	rangeHeader = regexp.MustCompile(`^(?i:bytes)=((?s).*)$`)
	rangeSpec   = regexp.MustCompile(`^([0-9]*)[ \t\r\n]*-[ \t\r\n]*([0-9]*)$`)
)

// modelRange returns the ranges that are within the value, one for each that was
// asked for.
func modelRange(header string, size int64) (asked []span, kind rangeKind) {
	m := rangeHeader.FindStringSubmatch(header)
	if m == nil || size == 0 {
		return nil, wholeValue
	}
	total, n := int64(0), 0
	for _, spec := range strings.Split(m[1], ",") {
		if spec = strings.Trim(spec, " \t\r\n"); spec == "" {
			continue
		}
		s, ok := modelSpec(spec, size)
		if n++; !ok || n > maxRanges {
			return nil, wholeValue
		}
		if s.n > 0 {
			asked = append(asked, s)
			total += s.n
		}
	}
	switch {
	case n == 0 || total > size:
		return nil, wholeValue
	case len(asked) == 0:
		return nil, unsatisfiable
	}
	return asked, partOfValue
}

// modelSpec is a single range, empty if there is nothing of it in the value.
func modelSpec(spec string, size int64) (s span, ok bool) {
	m := rangeSpec.FindStringSubmatch(spec)
	if m == nil || m[1]+m[2] == "" {
		return s, false
	}
	const far = 1 << 63 // as good as any number beyond
	number := func(digits string) uint64 {
		n, _ := new(big.Int).SetString("0"+digits, 10)
		if !n.IsUint64() || n.Uint64() > far-1 {
			return far - 1
		}
		return n.Uint64()
	}
	first, last, end := number(m[1]), number(m[2]), uint64(size)
	switch {
	case m[1] == "":
		first, last = end-min(last, end), end-1
	case m[2] == "":
		last = max(first, end-1)
	}
	if last < first && m[1] != "" {
		return s, false
	}
	for at := first; at <= last && at < end; at++ {
		if s.n == 0 {
			s.off = int64(at)
		}
		s.n++
	}
	return s, true
}

// checkSpans holds parts against the ranges asked for, byte by byte.
func checkSpans(t *testing.T, parts, asked []span, size int64) {
	t.Helper()
	first := make([]int, size) // the range that has a byte, counted from 1
	for i, s := range slices.Backward(asked) {
		for at := s.off; at < s.off+s.n; at++ {
			first[at] = i + 1
		}
	}
	before := 0
	for i, p := range parts {
		if p.n <= 0 || p.off < 0 || p.off+p.n > size {
			t.Fatalf("part %v of a value of %d bytes", p, size)
		}
		for _, q := range parts[:i] {
			if p.off <= q.off+q.n && q.off <= p.off+p.n {
				t.Fatalf("parts %v and %v touch", p, q)
			}
		}
		order := len(asked) + 1
		for at := p.off; at < p.off+p.n; at++ {
			if first[at] == 0 {
				t.Fatalf("byte %d of %v is not in %v, or is there twice", at, p, asked)
			}
			order, first[at] = min(order, first[at]), 0
		}
		if order < before {
			t.Fatalf("parts %v are not in the order of %v", parts, asked)
		}
		before = order
	}
	if i := slices.IndexFunc(first, func(n int) bool { return n != 0 }); i >= 0 {
		t.Fatalf("byte %d of %v is missing in %v", i, asked, parts)
	}
}

// checkContent: a response is no more than a little larger than the value,
// and as long as it says.
func checkContent(t *testing.T, header string, size int64, kind rangeKind) {
	c, ok := contentFor(header, size, defaultType)
	if ok == (kind == unsatisfiable) {
		t.Fatalf("%q of %d: %v", header, size, ok)
	}
	length := int64(len(c.first.text)) + c.first.n
	for _, p := range c.after {
		length += int64(len(p.text)) + p.n
	}
	if length != c.length || length > size+maxPartsExtra {
		t.Fatalf("%q of %d: length %d, of the parts %d", header, size, c.length, length)
	}
}

// FuzzConditions: whatever the fields are, what they come to is what the model of
// RFC 9110, section 13, says. Where they are no valid lists, which the standard
// says nothing about, they match no tag that is not in them.
func FuzzConditions(f *testing.F) {
	v := validators{version: db.Version{Sum: 1, Seq: 2}, modified: exampleTime}
	tag := etagOf(v.version)
	for i, list := range modelTags {
		list = strings.ReplaceAll(list, "TAG", tag)
		date := modelDates[i]
		f.Add(uint8(i), list, list, list, date, date)
		f.Add(uint8(i), "", list, "", date, "")
		f.Add(uint8(i), list, "", list, "", date)
	}
	for i, date := range modelDates {
		f.Add(uint8(i), "*", "", "", date, date)
	}
	for _, list := range conditionCases["If-Match"] {
		list = strings.ReplaceAll(list, "TAG", tag)
		f.Add(uint8(3), list, list, list, "", "")
	}
	f.Fuzz(func(t *testing.T, bits uint8, ifMatch, ifNoneMatch, ifRange, modifiedSince, unmodifiedSince string) {
		v := v
		r := resource{exists: true, tag: tag, modified: exampleTime.Truncate(time.Second)}
		if bits&8 != 0 {
			v.modified, r.modified = time.Time{}, time.Time{}
		}
		method := []string{"GET", "HEAD", "PUT", "DELETE"}[bits&3]
		if bits&4 != 0 && method == "PUT" {
			v, r = validators{}, resource{}
		}
		h := http.Header{}
		for name, value := range map[string]string{"If-Match": ifMatch, "If-None-Match": ifNoneMatch, "If-Range": ifRange,
			"If-Modified-Since": modifiedSince, "If-Unmodified-Since": unmodifiedSince} {
			if value != "absent" {
				h.Set(name, strings.Trim(value, " \t"))
			}
		}
		q := requestOf(&http.Request{Method: method, Header: h}, "k")
		checkInvalidLists(t, &q, v)
		if !validList(h, "If-Match") || !validList(h, "If-None-Match") {
			v.evaluate(&q)
			v.required(&q)
			return
		}
		want := modelStatus(method, h, r, 206, time.Now())
		if got := statusOf(&q, v); got != want {
			t.Fatalf("%s %q of %+v: %d, want %d", method, h, r, got, want)
		}
	})
}

// statusOf is what a request to a value of more than one byte is answered with,
// a GET being for a part of it.
func statusOf(q *request, v validators) int {
	if !q.reads() && q.refuseWrite() != nil {
		return http.StatusBadRequest
	}
	switch verdict := v.evaluate(q); {
	case verdict == refused:
		return http.StatusPreconditionFailed
	case verdict == notModified:
		return http.StatusNotModified
	case q.method == http.MethodGet && v.rangeApplies(q):
		return http.StatusPartialContent
	case q.reads():
		return http.StatusOK
	case v.absent():
		return http.StatusCreated
	}
	return http.StatusNoContent
}

// validList reports whether a field is a list of tags, or a star, or not there.
func validList(h http.Header, name string) bool {
	list := strings.Join(h[name], ", ")
	return h[name] == nil || list == "*" || listOfTags.MatchString(list)
}

func checkInvalidLists(t *testing.T, q *request, v validators) {
	if v.absent() {
		return
	}
	tag := etagOf(v.version)
	for _, list := range []string{q.ifMatch, q.ifNoneMatch} {
		for _, strong := range []bool{true, false} {
			if v.matches(list, strong) && !strings.Contains(list, tag) && !strings.Contains(list, "*") {
				t.Fatalf("%q matches %s", list, tag)
			}
		}
	}
}

// FuzzPath: every key comes back from its path, as net/url and the fast path read
// it; and of any target both make the same key, or one of them refuses it.
func FuzzPath(f *testing.F) {
	for _, key := range awkwardKeys() {
		f.Add([]byte("/" + key))
	}
	for _, target := range append(targets, oddTargets...) {
		f.Add([]byte("/" + target))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		checkKey(t, p)
		checkTarget(t, p)
	})
}

// checkKey: decoding is the inverse of encoding.
func checkKey(t *testing.T, key []byte) {
	path := pathOf(key)
	if got, kind, ok := keyBySlowPath(path); !ok || kind != keyPath || got != string(key) {
		t.Fatalf("key %q becomes %q (%v)", key, got, kind)
	}
	if got, ok := keyByFastPath(path); ok != (len(key) > 0) || got != string(key) {
		t.Fatalf("key %q becomes %q on the fast path (%v)", key, got, ok)
	}
}

// checkTarget: both ways of decoding agree, and encoding is the inverse of it for
// a target that has nothing to encode.
func checkTarget(t *testing.T, p []byte) {
	target := string(p)
	slow, kind, parsed := keyBySlowPath(target)
	if fast, ok := keyByFastPath(target); ok {
		if !parsed || kind != keyPath || fast != slow {
			t.Fatalf("target %q is %q on the fast path, and %q (%v) to net/http", target, fast, slow, kind)
		}
		if decoded, err := url.PathUnescape(target[1:]); err != nil || decoded != fast {
			t.Fatalf("target %q is %q, unescaped %q", target, fast, decoded)
		}
	}
	if !parsed || kind != keyPath {
		return
	}
	checkKey(t, []byte(slow))
	if again := pathOf([]byte(slow)); plainPath.MatchString(target) && !fragileSlashes(slow) && again != target {
		t.Fatalf("target %q becomes %q", target, again)
	}
}

// plainPath is a target that is encoded as pathOf would do it.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9._~/-]*$`)

// keyBySlowPath is what net/http makes of a target.
func keyBySlowPath(target string) (key string, kind pathKind, ok bool) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return "", badPath, false
	}
	key, kind = splitPath(u)
	return key, kind, true
}

// keyByFastPath is what the fast path makes of it, if it takes it.
func keyByFastPath(target string) (string, bool) {
	var h head
	ok := h.target([]byte(target))
	return string(h.key), ok
}
