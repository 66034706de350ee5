package server

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// resource is what a key stands for, in a model of RFC 9110, section 13.
type resource struct {
	exists   bool
	tag      string    // as in ETag: strong
	modified time.Time // in seconds; zero if unknown
}

// What a valid list of entity tags looks like: section 8.8.3 and, for empty
// elements, 5.6.1.2.
const (
	anEntityTag = `(?:W/)?"[^\x00-\x20"\x7f]*"`
	anElement   = `[ \t]*(?:` + anEntityTag + `)?[ \t]*`
)

var (
	entityTag   = regexp.MustCompile(anEntityTag)
	listOfTags  = regexp.MustCompile(`^` + anElement + `(?:,` + anElement + `)*$`)
	httpDate    = regexp.MustCompile(`^(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) (` + months + `) (\d{4}) (\d\d):(\d\d):(\d\d) GMT)$`)
	rfc850Date  = regexp.MustCompile(`^(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\d\d)-(` + months + `)-(\d\d) (\d\d):(\d\d):(\d\d) GMT)$`)
	asctimeDate = regexp.MustCompile(`^(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (` + months + `) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4}))$`)
)

const months = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"

// modelDate reads an HTTP-date: section 5.6.7.
func modelDate(text string, now time.Time) (time.Time, bool) {
	var day, month, year, clock = "", "", "", []string(nil)
	if m := httpDate.FindStringSubmatch(text); m != nil {
		day, month, year, clock = m[1], m[2], m[3], m[4:7]
	} else if m := rfc850Date.FindStringSubmatch(text); m != nil {
		day, month, year, clock = m[1], m[2], m[3], m[4:7]
	} else if m := asctimeDate.FindStringSubmatch(text); m != nil {
		month, day, clock, year = m[1], m[2], m[3:6], m[6]
	} else {
		return time.Time{}, false
	}
	number := func(s string) int {
		n, _ := strconv.Atoi(strings.TrimSpace(s))
		return n
	}
	y := number(year)
	if len(year) == 2 {
		y += now.Year() / 100 * 100
	}
	m := time.Month(strings.Index(months, month)/4 + 1)
	at := func(y int) time.Time {
		return time.Date(y, m, number(day), number(clock[0]), number(clock[1]), number(clock[2]), 0, time.UTC)
	}
	t := at(y)
	if len(year) == 2 && t.After(now.AddDate(50, 0, 0)) {
		t = at(y - 100)
	}
	valid := t.Day() == number(day) && number(clock[0]) < 24 && number(clock[1]) < 60 && number(clock[2]) < 60
	return t, valid
}

// modelMatches reports whether a tag is in a list, which must be valid: sections
// 8.8.3.2, 13.1.1 and 13.1.2.
func modelMatches(lines []string, r resource, strong bool) bool {
	list := strings.Join(lines, ", ")
	if strings.Trim(list, " \t") == "*" {
		return r.exists
	}
	for _, tag := range entityTag.FindAllString(list, -1) {
		if r.exists && (tag == r.tag || !strong && strings.TrimPrefix(tag, "W/") == r.tag) {
			return true
		}
	}
	return false
}

// modelRefuses reports whether a write is refused for what it says. RFC 9110 has
// a date that is none, and the Range of a write, ignored (13.1.4, 14.2). But what
// replaces or removes a value on a condition must not do so without one.
func modelRefuses(h http.Header, now time.Time) bool {
	if h["Range"] != nil {
		return true
	}
	lines := h["If-Unmodified-Since"]
	if h["If-Match"] != nil {
		return false
	}
	if len(lines) != 1 {
		return lines != nil
	}
	_, ok := modelDate(lines[0], now)
	return !ok
}

// modelStatus is how a request is answered: section 13.2, but for what
// modelRefuses says, and for two dates that need not be of this server's making:
// a write with If-Unmodified-Since needs one to be held against, and
// If-Modified-Since takes only the very one for that of the value, or a later one
// than now. Of GET with a Range, of
// which ranged says what it would be answered with alone, and which has to be
// ignored if it is 0.
func modelStatus(method string, h http.Header, r resource, ranged int, now time.Time) int {
	reads := method == http.MethodGet || method == http.MethodHead
	if !reads && modelRefuses(h, now) {
		return http.StatusBadRequest
	}
	if !r.exists && method != http.MethodPut {
		return http.StatusNotFound // 13.2.1: no success without the conditions
	}
	since := func(name string) (time.Time, bool) {
		if len(h[name]) != 1 || r.modified.IsZero() {
			return time.Time{}, false // 13.1.3, 13.1.4
		}
		return modelDate(h[name][0], now)
	}
	if lines := h["If-Match"]; lines != nil { // step 1
		if !modelMatches(lines, r, true) {
			return http.StatusPreconditionFailed
		}
	} else if t, ok := since("If-Unmodified-Since"); ok && r.modified.After(t) || // step 2
		!ok && !reads && r.exists && h["If-Unmodified-Since"] != nil {
		return http.StatusPreconditionFailed
	}
	if lines := h["If-None-Match"]; lines != nil { // step 3
		if modelMatches(lines, r, false) {
			if reads {
				return http.StatusNotModified
			}
			return http.StatusPreconditionFailed
		}
	} else if t, ok := since("If-Modified-Since"); ok && reads && (r.modified.Equal(t) || t.After(now)) { // step 4
		return http.StatusNotModified
	}
	switch {
	case method == http.MethodPut && !r.exists:
		return http.StatusCreated
	case !reads:
		return http.StatusNoContent
	}
	if method == http.MethodGet && ranged != 0 && modelIfRange(h, r) { // step 5
		return ranged
	}
	return http.StatusOK // step 6
}

// modelIfRange: section 13.1.5. No date is a strong validator in the sense of
// 8.8.2.2: the server can't know that a value did not change twice in a second.
func modelIfRange(h http.Header, r resource) bool {
	lines := h["If-Range"]
	return lines == nil || len(lines) == 1 && lines[0] == r.tag
}

// modelRanges are Range headers for a value of 1000 bytes, and how a GET with
// them is answered.
var modelRanges = map[string]int{
	"bytes=0-9": 206, "bytes=0-1,5-6": 206, "bytes=2000-": 416, "bytes=-5,3000-": 206, "bytes=2000-,-0": 416, "lines=1-2": 0,
}

// modelTags are valid lists of tags. TAG stands for the present one.
var modelTags = []string{
	"*", "TAG", `"x"`, `"x", TAG`, "W/TAG", `W/"x",TAG`, `"x",W/TAG`, ",,TAG", `"x"  ,	TAG`, `""`, "", ",", ", ,", "\"\xff\",TAG,",
	`"W/x", "a,b", TAG`, `"*"`, `"a,W/"	,W/TAG`,
}

// modelDates are dates, good and bad. The value is from exampleDate.
var modelDates = []string{
	exampleDate, dayBefore, "Fri, 02 Jan 2026 03:04:06 GMT", "Fri, 02 Jan 2026 03:04:04 GMT", "Sun, 06 Nov 1994 08:49:37 GMT",
	"Friday, 02-Jan-26 03:04:05 GMT", "Thursday, 01-Jan-26 03:04:05 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Monday, 06-Nov-70 08:49:37 GMT",
	"Monday, 06-Nov-75 08:49:37 GMT", "Monday, 06-Nov-78 08:49:37 GMT", "Monday, 06-Nov-68 08:49:37 GMT",
	"Fri Jan  2 03:04:05 2026", "Thu Jan  1 03:04:05 2026", "Sun Nov 06 08:49:37 2094", "Sun Nov 16 08:49:37 1994",
	"Mon, 02 Jan 2026 03:04:05 GMT", // it was no Monday, but that is not for a parser to say
	// Invalid ones, of which some would be taken by parsers that are less strict.
	"", "0", "-1", "tomorrow", "2026-01-02T03:04:05Z", "Fri, 02 Jan 2026 03:04:05 CET", "Friday, 02-Jan-26 03:04:05 CET", "fri, 02 jan 2026 03:04:05 gmt",
	"Fri, 2 Jan 2026 03:04:05 GMT", "Fri, 02 Jan 26 03:04:05 GMT", "Fri, 02 Jan 2026 03:04:05.5 GMT", "Fri, 02 Jan 2026 3:04:05 GMT",
	"Fri, 32 Jan 2026 03:04:05 GMT", "Fri, 30 Feb 2026 03:04:05 GMT", "Fri, 02 Jan 2026 24:00:00 GMT", "Fri, 02 Jan 2026 03:04:05", "02 Jan 2026 03:04:05 GMT",
	"Fri, 02 Jan 2026 03:04:05 GMT, " + exampleDate, "Fri, 02-Jan-26 03:04:05 GMT", "Friday, 02 Jan 2026 03:04:05 GMT", "Fri Jan 2 03:04:05 2026",
	"Fri,  02 Jan 2026 03:04:05 GMT", "Fri, 02 Jan 2026 03:04:05 +0000", `"x"`, "TAG",
}

// TestConditionModel compares what servers with and without the fast path answer
// with a model written from the text of RFC 9110, section 13: thousands of
// requests with any combination of valid tags, of dates, valid or not, and of
// several lines, to values with a date and without, and to none.
func TestConditionModel(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			store := openStore(t)
			s, addr := start(t, store, nil, func(s *Server) {
				s.slow = slow
				s.handler.now = func() time.Time { return exampleTime }
			})
			m := &conditionModel{t: t, store: store, random: rand.New(rand.NewPCG(1, 1)), seen: map[string]int{}}
			for i := range 6000 {
				if i%4 == 0 { // it may be net/http's by now
					if m.c != nil {
						m.c.Close()
					}
					m.c = dial(t, addr)
				}
				m.ask()
			}
			if fast := s.Stats().Fast; slow != (fast < 1000) {
				t.Errorf("%d requests on the fast path", fast)
			}
			for _, want := range []string{"GET 200", "GET 206", "GET 304", "GET 404", "GET 412", "GET 416", "HEAD 200", "HEAD 304", "HEAD 412",
				"PUT 201", "PUT 204", "PUT 412", "DELETE 204", "DELETE 404", "DELETE 412"} {
				if m.seen[want] < 20 {
					t.Errorf("%s: only %d times", want, m.seen[want])
				}
			}
		})
	}
}

type conditionModel struct {
	t      *testing.T
	store  *db.DB
	c      *wire
	random *rand.Rand
	seen   map[string]int
}

// ask makes a resource, sends a request to it and compares.
func (m *conditionModel) ask() {
	r := m.resource()
	h := m.header(r.tag)
	method := []string{"GET", "GET", "GET", "HEAD", "PUT", "DELETE"}[m.random.IntN(6)]
	var list []string
	for name, lines := range h {
		for _, line := range lines {
			list = append(list, name+": "+line)
		}
	}
	ranged := 0
	if lines := h["Range"]; len(lines) == 1 {
		ranged = modelRanges[lines[0]]
	}
	want := modelStatus(method, h, r, ranged, time.Now())
	body := ""
	if method == "PUT" {
		body = "new"
	}
	got := m.c.do(method, "/k", body, list...)
	m.seen[fmt.Sprint(method, " ", want)]++
	if got.StatusCode != want {
		m.t.Fatalf("%s %q of %+v: status %d, want %d", method, h, r, got.StatusCode, want)
	}
	if tag := got.Header.Get("Etag"); (got.StatusCode == 304 || method == "GET" && got.StatusCode < 300) && tag != r.tag {
		m.t.Fatalf("%s %q of %+v: ETag %s", method, h, r, tag)
	}
}

// resource makes the value anew, or takes it away.
func (m *conditionModel) resource() (r resource) {
	switch m.random.IntN(6) {
	case 0:
		if err := m.store.Delete([]byte("k"), nil); err != nil && !errors.Is(err, db.ErrNotFound) {
			m.t.Fatal(err)
		}
		return resource{tag: `"gone"`}
	case 1:
		put(m.t, m.store, "k", noise(1000, 1), nil)
	default:
		put(m.t, m.store, "k", noise(1000, 1), &db.Metadata{ModTime: exampleTime})
		r.modified = exampleTime.Truncate(time.Second)
	}
	r.exists, r.tag = true, etagIn(m.t, m.store, "k")
	return r
}

// header makes conditions: about half of them are there, and some have two
// lines.
func (m *conditionModel) header(tag string) http.Header {
	h := http.Header{}
	add := func(name string, values []string) {
		for n := m.random.IntN(2); n > 0 && len(h[name]) < 3; n = m.random.IntN(5) / 4 {
			value := strings.ReplaceAll(values[m.random.IntN(len(values))], "TAG", tag)
			h[name] = append(h[name], value)
		}
	}
	noStar := modelTags[1:] // which is valid alone only
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if add(name, noStar); m.random.IntN(6) == 0 {
			h[name] = []string{"*"}
		}
	}
	add("If-Modified-Since", modelDates)
	add("If-Unmodified-Since", modelDates)
	if m.random.IntN(2) == 0 {
		ranges := slices.Sorted(maps.Keys(modelRanges))
		h["Range"] = []string{ranges[m.random.IntN(len(ranges))]}
		add("If-Range", append(slices.Repeat([]string{"TAG", "W/TAG", `"x"`, "TAG, TAG", "TAG,", "*"}, 4), modelDates...))
	}
	return h
}

// TestDates compares the parser of dates with the one of the model, at moments at
// which years of two digits mean different things.
func TestDates(t *testing.T) {
	for _, text := range modelDates {
		for _, year := range []int{1999, 2019, 2024, 2026, 2050, 2099} {
			now := time.Date(year, 11, 6, 8, 49, 36, 0, time.UTC)
			got, ok := parseDate(text, now)
			want, wantOK := modelDate(text, now)
			if ok != wantOK || ok && !got.Equal(want) {
				t.Errorf("%q in %d: %v %v, want %v %v", text, year, got, ok, want, wantOK)
			}
		}
	}
	now := time.Date(2026, 11, 6, 8, 49, 36, 0, time.UTC)
	for text, year := range map[string]int{"Sunday, 06-Nov-76 08:49:36 GMT": 2076, "Sunday, 06-Nov-76 08:49:37 GMT": 1976, "Sunday, 06-Nov-70 08:49:37 GMT": 2070} {
		if got, ok := parseDate(text, now); !ok || got.Year() != year {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzDate: whatever it is, the parser agrees with the model.
func FuzzDate(f *testing.F) {
	for _, text := range append(modelDates, dates...) {
		f.Add(text, int64(1767323045))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		now := time.Unix(unix&(1<<33-1), 0).UTC()
		got, ok := parseDate(text, now)
		if want, wantOK := modelDate(text, now); ok != wantOK || ok && !got.Equal(want) {
			t.Errorf("%q at %v: %v %v, want %v %v", text, now, got, ok, want, wantOK)
		}
	})
}
