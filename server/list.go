package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/crowfly/crowfly/db"
)

// Limits of one page of a listing.
const (
	maxPageKeys  = 1000
	maxPageBytes = 1 << 20 // more or less: the page ends with the key that passes it
)

// listQuery is what a listing is asked for.
type listQuery struct {
	prefix string
	start  string // the first key that may be listed
	limit  int
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
		case "start":
			q.start = list[0]
		case "limit":
			q.limit, err = strconv.Atoi(list[0])
			if err != nil || q.limit < 1 || q.limit > maxPageKeys {
				return q, fmt.Errorf("limit must be 1 to %d", maxPageKeys)
			}
		default:
			return q, fmt.Errorf("unknown parameter %q", name)
		}
	}
	return q, nil
}

// from is q from another key on, as a relative reference.
func (q listQuery) from(start []byte) string {
	values := url.Values{"start": {string(start)}, "limit": {strconv.Itoa(q.limit)}}
	if q.prefix != "" {
		values.Set("prefix", q.prefix)
	}
	return "?" + values.Encode()
}

// list answers GET and HEAD of the empty key: a page of keys in order.
func (x *exchange) list() {
	defer guard()()
	q, err := parseListQuery(x.r.URL.RawQuery)
	if err != nil {
		x.problem(http.StatusBadRequest, err.Error())
		return
	}
	x.w.Header().Set("Vary", "Accept")
	var page pageWriter = &jsonPage{}
	if wantsText(x.r.Header) {
		page = &textPage{}
	}
	next, err := x.fill(page, q)
	if err != nil {
		x.fail(err)
		return
	}
	if next != "" {
		x.w.Header().Set("Link", "<"+next+`>; rel="next"`)
	}
	contentType, text := page.finish(next)
	x.reply(http.StatusOK, contentType, text)
}

// fill writes one page and returns the reference to the next one, or "".
func (x *exchange) fill(page pageWriter, q listQuery) (next string, err error) {
	s, err := x.store.Snapshot()
	if err != nil {
		return "", err
	}
	defer s.Close()
	keys := 0
	for key, entry := range s.Prefix([]byte(q.prefix), []byte(q.start)) {
		if err := entry.Err(); err != nil {
			return "", err
		}
		if keys == q.limit || page.size() >= maxPageBytes {
			return q.from(key), nil
		}
		if err := page.add(key, &entry); err != nil {
			return "", err
		}
		keys++
	}
	return "", nil
}

// wantsText reports whether a client asks for plain text and not for JSON.
func wantsText(h http.Header) bool {
	accept := strings.Join(h["Accept"], ",")
	return strings.Contains(accept, "text/plain") && !strings.Contains(accept, "json")
}

// pageWriter is one form of a listing.
type pageWriter interface {
	add(key []byte, e *db.Entry) error
	size() int
	finish(next string) (contentType string, text []byte)
}

// textPage has the path of each key on a line.
type textPage struct{ bytes.Buffer }

func (p *textPage) add(key []byte, _ *db.Entry) error {
	p.WriteString(pathOf(key))
	p.WriteByte('\n')
	return nil
}

func (p *textPage) size() int { return p.Len() }

func (p *textPage) finish(string) (string, []byte) {
	return "text/plain; charset=utf-8", p.Bytes()
}

// jsonPage is {"keys": [listEntry...], "next": "?start=..."}.
type jsonPage struct{ bytes.Buffer }

// listEntry is a key in a listing in JSON.
type listEntry struct {
	Key         string    `json:"key"`  // for people: bytes that are not UTF-8 are replaced
	Path        string    `json:"path"` // for programs: exact, the URL path of the key
	Size        int64     `json:"size"`
	ETag        string    `json:"etag"`
	ContentType string    `json:"content_type"`
	Modified    time.Time `json:"modified,omitzero"`
}

func (p *jsonPage) add(key []byte, e *db.Entry) error {
	m, err := e.Metadata()
	if err != nil {
		return err
	}
	if m.ContentType == "" {
		m.ContentType = defaultType
	}
	text, err := json.Marshal(listEntry{
		Key:         string(key),
		Path:        pathOf(key),
		Size:        e.Size(),
		ETag:        etagOf(e.Version()),
		ContentType: m.ContentType,
		Modified:    m.ModTime,
	})
	if err != nil {
		return err
	}
	if p.Len() > 0 {
		p.WriteString(",\n")
	}
	p.Write(text)
	return nil
}

func (p *jsonPage) size() int { return p.Len() }

func (p *jsonPage) finish(next string) (string, []byte) {
	text := append([]byte(`{"keys":[`), p.Bytes()...)
	text = append(text, ']')
	if next != "" {
		text = append(text, `,"next":`+strconv.Quote(next)...) // percent-encoded, so plain ASCII
	}
	return "application/json", append(text, "}\n"...)
}
