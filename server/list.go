package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crowfly/crowfly/db"
)

// Limits of one page of a listing.
const (
	maxPageKeys  = 1000
	maxPageBytes = 1 << 20 // more or less: the page ends with the key that passes it

	// The reference to the next page is within what this server and most
	// proxies take, however long the keys are: a prefix and a delimiter, and
	// where to go on, both as they are encoded.
	maxFilter = 6 << 10
	maxStart  = 1 << 10
)

// errListGone says that a listing can't go on where it was.
var errListGone = errors.New("the key that the page before ended with is gone: list again from the start")

// listQuery is what a listing is asked for.
type listQuery struct {
	prefix    string
	delimiter string // "" for none
	start     string // the first key that may be listed
	after     string // the tokenOf of what was listed last, if start does not tell
	limit     int    // of keys and rolled-up prefixes together
}

// parseListQuery reads the query of a listing. A parameter it does not know
// may be one misspelt, and the wrong keys are worse than none.
func parseListQuery(raw string) (listQuery, error) {
	q := listQuery{limit: maxPageKeys}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, err
	}
	for name, list := range values {
		if len(list) > 1 {
			return q, fmt.Errorf("parameter %q is given more than once", name)
		}
		switch name {
		case "prefix":
			q.prefix = list[0]
		case "delimiter":
			q.delimiter = list[0]
		case "start":
			q.start = list[0]
		case "after":
			q.after = list[0]
		case "limit":
			q.limit, err = strconv.Atoi(list[0])
			if err != nil || q.limit < 1 || q.limit > maxPageKeys {
				return q, fmt.Errorf("limit must be 1 to %d", maxPageKeys)
			}
		default:
			return q, fmt.Errorf("unknown parameter %q", name)
		}
	}
	if len(url.QueryEscape(q.prefix))+len(url.QueryEscape(q.delimiter)) > maxFilter {
		return q, fmt.Errorf("prefix and delimiter are longer than %d bytes as they are encoded", maxFilter)
	}
	return q, nil
}

// from is q from a key on that follows what was listed last, as a relative
// reference. It begins at the shortest text that is between the two, or at the
// beginning of that if it is too long, and then tells the last one by its token.
func (q listQuery) from(key, last []byte) string {
	n := commonLength(key, last) + 1
	values := url.Values{"limit": {strconv.Itoa(q.limit)}}
	if len(url.QueryEscape(string(key[:n]))) > maxStart {
		n = maxStart / len("%00")
		values.Set("after", tokenOf(last))
	}
	values.Set("start", string(key[:n]))
	if q.prefix != "" {
		values.Set("prefix", q.prefix)
	}
	if q.delimiter != "" {
		values.Set("delimiter", q.delimiter)
	}
	return "?" + values.Encode()
}

func commonLength(a, b []byte) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// tokenOf stands for a key that is too long to be asked for.
func tokenOf(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}

// resume returns the first key that may be listed.
func (q listQuery) resume(s *db.Snapshot) ([]byte, error) {
	start := []byte(max(q.start, q.prefix))
	if q.after == "" {
		return start, nil
	}
	for key, entry := range s.Range(start, behind([]byte(q.prefix))) {
		if err := entry.Err(); err != nil {
			return nil, err
		}
		common, rolled := q.rollUp(key)
		switch {
		case rolled && tokenOf(common) == q.after:
			return behind(common), nil
		case !rolled && tokenOf(key) == q.after:
			return append(bytes.Clone(key), 0), nil
		}
	}
	return nil, errListGone
}

// rollUp returns what a key is listed as a part of: itself up to the first
// delimiter behind the prefix. There may be none.
func (q listQuery) rollUp(key []byte) (common []byte, ok bool) {
	if q.delimiter == "" {
		return nil, false
	}
	i := bytes.Index(key[len(q.prefix):], []byte(q.delimiter))
	if i < 0 {
		return nil, false
	}
	return key[:len(q.prefix)+i+len(q.delimiter)], true
}

// list answers GET and HEAD of the empty key: a page of keys in order.
func (x *exchange) list() {
	defer guard()()
	q, err := parseListQuery(x.r.URL.RawQuery)
	if err != nil {
		x.problem(http.StatusBadRequest, err.Error())
		return
	}
	x.w.Header().Add("Vary", "Accept")
	x.skipBody() // before anything is made that would wait for it
	held := int64(maxPageBytes)
	if !x.inFlight.take(held, 0) {
		x.busy()
		return
	}
	defer func() { x.inFlight.give(held) }()
	var page pageWriter = &jsonPage{rolls: q.delimiter != ""}
	if wantsText(x.r.Header) {
		page = &textPage{}
	}
	next, err := x.fill(page, q)
	if err == errListGone {
		x.problem(http.StatusGone, err.Error())
		return
	}
	if err != nil {
		x.fail(err)
		return
	}
	if next != "" {
		x.w.Header().Set("Link", "<"+next+`>; rel="next"`)
	}
	contentType, text := page.finish(next)
	if rest := held - int64(cap(text)); rest > 0 {
		x.inFlight.give(rest)
		held -= rest
	}
	x.reply(http.StatusOK, contentType, text)
}

// fill writes one page and returns the reference to the next one, or "".
func (x *exchange) fill(page pageWriter, q listQuery) (next string, err error) {
	s, err := x.store.Snapshot()
	if err != nil {
		return "", err
	}
	defer s.Close()
	entries := 0
	end := behind([]byte(q.prefix))
	start, err := q.resume(s)
	if err != nil {
		return "", err
	}
	var last []byte
	for start != nil {
		var common []byte // of the keys that come next
		for key, entry := range s.Range(start, end) {
			if err := entry.Err(); err != nil {
				return "", err
			}
			if entries == q.limit || page.size() >= maxPageBytes {
				return q.from(key, last), nil
			}
			entries++
			last = append(last[:0], key...)
			var rolled bool
			if common, rolled = q.rollUp(key); rolled {
				break
			}
			if err := page.add(key, &entry); err != nil {
				return "", err
			}
		}
		if common == nil {
			break
		}
		// What lies below may be most of the store. It is not looked at.
		page.addPrefix(common)
		last = append(last[:0], common...)
		start = behind(common)
	}
	return "", nil
}

// behind is the first key after all that begin with prefix, or nil if there
// can't be one.
func behind(prefix []byte) []byte {
	n := len(prefix)
	for n > 0 && prefix[n-1] == 0xff {
		n--
	}
	if n == 0 {
		return nil
	}
	end := bytes.Clone(prefix[:n])
	end[n-1]++
	return end
}

// wantsText reports whether a client asks for plain text and not for JSON.
func wantsText(h http.Header) bool {
	accept := strings.Join(h["Accept"], ",")
	return strings.Contains(accept, "text/plain") && !strings.Contains(accept, "json")
}

// pageWriter is one form of a listing.
type pageWriter interface {
	add(key []byte, e *db.Entry) error
	addPrefix(prefix []byte)
	size() int
	finish(next string) (contentType string, text []byte)
}

// textPage has the path of each key and prefix on a line. They can be told
// apart: no key has the delimiter where each prefix ends with it.
type textPage struct{ bytes.Buffer }

func (p *textPage) add(key []byte, _ *db.Entry) error {
	p.addPrefix(key)
	return nil
}

func (p *textPage) addPrefix(prefix []byte) {
	p.WriteString(pathOf(prefix))
	p.WriteByte('\n')
}

func (p *textPage) size() int { return p.Len() }

func (p *textPage) finish(string) (string, []byte) {
	return plainText, p.Bytes()
}

// jsonPage is {"keys": [listEntry...], "prefixes": [listPrefix...],
// "next": "?start=..."}, with prefixes if there is a delimiter.
type jsonPage struct {
	keys, prefixes bytes.Buffer
	rolls          bool // there is a delimiter
}

// listEntry is a key in a listing in JSON.
type listEntry struct {
	Key         string    `json:"key"`  // for people: bytes that are not UTF-8 are replaced
	Path        string    `json:"path"` // for programs: exact, the URL path of the key
	Size        int64     `json:"size"`
	ETag        string    `json:"etag"`
	ContentType string    `json:"content_type"`
	Modified    time.Time `json:"modified,omitzero"`
}

// listPrefix is the common beginning of keys in a listing in JSON.
type listPrefix struct {
	Prefix string `json:"prefix"` // for people, as the key of a listEntry
	Path   string `json:"path"`   // for programs: as if it were a key
}

func (p *jsonPage) add(key []byte, e *db.Entry) error {
	m, err := e.Metadata()
	if err != nil {
		return err
	}
	if m.ContentType == "" {
		m.ContentType = defaultType
	}
	addJSON(&p.keys, listEntry{
		Key:         string(key),
		Path:        pathOf(key),
		Size:        e.Size(),
		ETag:        etagOf(e.Version()),
		ContentType: m.ContentType,
		Modified:    m.ModTime,
	})
	return nil
}

func (p *jsonPage) addPrefix(prefix []byte) {
	addJSON(&p.prefixes, listPrefix{string(prefix), pathOf(prefix)})
}

// addJSON adds an element to a list.
func addJSON(list *bytes.Buffer, element any) {
	text, err := json.Marshal(element)
	if err != nil {
		panic(err) // strings, numbers and the times a value can have always encode
	}
	if list.Len() > 0 {
		list.WriteString(",\n")
	}
	list.Write(text)
}

func (p *jsonPage) size() int { return p.keys.Len() + p.prefixes.Len() }

func (p *jsonPage) finish(next string) (string, []byte) {
	text := slices.Concat([]byte(`{"keys":[`), p.keys.Bytes(), []byte("]"))
	if p.rolls {
		text = slices.Concat(text, []byte(`,"prefixes":[`), p.prefixes.Bytes(), []byte("]"))
	}
	if next != "" {
		text = append(text, `,"next":`+strconv.Quote(next)...) // percent-encoded, so plain ASCII
	}
	return "application/json", append(text, "}\n"...)
}
