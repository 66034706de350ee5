package server

import (
	"bytes"
	"iter"
	"net/http"
	"net/textproto"
	"strconv"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// keepMin is the size from which a body may take so long that the store lists
// its value among the open handles.
const keepMin = 1 << 20

// answer is the response to GET, HEAD or PUT of a key, made and not yet sent.
// It is the same for net/http and for the fast path.
type answer struct {
	limit  deadline
	status int
	fields []byte // lines of the header, in the order of their names
	text   []byte // the body, unless the method is HEAD, if it was made for this response
	body   body   // or a part of a value, if it has any bytes
	kept   *db.Value

	// On the fast path, see origins.
	vary   bool   // another Origin may get another header
	origin string // whose pages may read this answer, or ""
}

// end comes after the response: a large value is not held any longer, and
// nothing of a small one is left.
func (a *answer) end() {
	if a.kept != nil {
		a.kept.Close()
		a.kept = nil
	}
	a.body = body{}
}

// get makes the answer to GET and HEAD of a key that has a value. When it fails
// nothing of it is of use. It is guarded, because the metadata lies in the
// mapping.
func (a *answer) get(h *Handler, q *request, v *db.Lent) (err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	m, err := v.Metadata()
	if err != nil {
		return err
	}
	switch current := validatorsOf(v, &m); current.evaluate(q) {
	case refused:
		a.refuse(refusal{http.StatusPreconditionFailed, "the value is not the one the request is about"}, nil)
	case notModified:
		a.status = http.StatusNotModified
		a.addOrigin()
		a.addText("Cache-Control", m.CacheControl)
		a.addValidators(current)
	default:
		return a.getValue(h, q, v, &m, current)
	}
	return nil
}

// getValue makes the answer that has the value or parts of it.
func (a *answer) getValue(h *Handler, q *request, v *db.Lent, m *db.Metadata, current validators) error {
	ranges := ""
	if q.method == http.MethodGet && current.rangeApplies(q) { // of HEAD there are no ranges
		ranges = q.ranges
	}
	c, ok := contentFor(ranges, v.Size(), typeOf(m))
	if !ok {
		contentRange := strconv.AppendInt([]byte("bytes */"), v.Size(), 10)
		a.refuse(refusal{http.StatusRequestedRangeNotSatisfiable, "the value ends before the range begins"}, contentRange)
		return nil
	}
	if q.method == http.MethodGet && c.length > 0 {
		// Here the first bytes are verified. After the header it would be
		// too late to answer with an error.
		if err := a.body.begin(h, a.limit, v, &c); err != nil {
			return err
		}
		if c.length > keepMin {
			a.kept = v.Keep()
		}
	}
	a.status = c.status
	a.describe(m, current, &c)
	return nil
}

// describe adds what describes the bytes to come.
func (a *answer) describe(m *db.Metadata, current validators, c *content) {
	a.add("Accept-Ranges", "bytes")
	a.addOrigin()
	a.addText("Cache-Control", m.CacheControl)
	a.addText("Content-Disposition", m.ContentDisposition)
	a.addText("Content-Encoding", m.ContentEncoding)
	a.addLength(c.length)
	a.addContentRange(c.contentRange)
	if !shownByViewer(c.contentType) {
		// A page that somebody has stored must not run scripts that can
		// ask for everything else in the store.
		a.add("Content-Security-Policy", "sandbox")
	}
	a.add("Content-Type", c.contentType)
	a.addValidators(current)
	for _, p := range m.User {
		if token(p.Name) && visible(p.Value) {
			a.add(textproto.CanonicalMIMEHeaderKey(userPrefix+p.Name), p.Value)
		}
	}
}

// refuse makes the answer an error.
func (a *answer) refuse(r refusal, contentRange []byte) {
	a.status, a.text = r.status, r.text()
	a.fields = a.fields[:0]
	a.addOrigin()
	a.addLength(int64(len(a.text)))
	a.addContentRange(contentRange)
	a.add("Content-Type", problemType)
	a.addNoSniff()
}

// stored makes the answer to a PUT that took place.
func (a *answer) stored(r db.Result) {
	a.status = http.StatusNoContent
	a.addOrigin()
	if !r.Existed {
		a.status = http.StatusCreated
		a.addLength(0)
	}
	a.addTag(r.Version)
	a.addNoSniff()
}

// addValidators adds what a client needs to ask for the value again.
func (a *answer) addValidators(v validators) {
	a.addTag(v.version)
	if !v.modified.IsZero() {
		a.fields = append(a.fields, "Last-Modified: "...)
		a.fields = appendTime(a.fields, v.modified)
		a.fields = append(a.fields, "\r\n"...)
	}
	a.addNoSniff()
}

func (a *answer) addTag(v db.Version) {
	a.fields = append(a.fields, "Etag: "...)
	a.fields = append(appendTag(a.fields, v), "\r\n"...)
}

func (a *answer) addLength(n int64) {
	a.fields = append(a.fields, "Content-Length: "...)
	a.fields = append(strconv.AppendInt(a.fields, n, 10), "\r\n"...)
}

func (a *answer) addContentRange(text []byte) {
	if text != nil {
		a.fields = append(append(append(a.fields, "Content-Range: "...), text...), "\r\n"...)
	}
}

// addOrigin lets pages of another site read the answer.
func (a *answer) addOrigin() {
	if a.origin != "" {
		a.add("Access-Control-Allow-Origin", a.origin)
		a.add("Access-Control-Expose-Headers", exposedHeaders)
	}
}

// addNoSniff: a browser must not take an uploaded text for a script.
func (a *answer) addNoSniff() {
	if a.vary {
		a.add("Vary", "Origin")
	}
	a.fields = append(a.fields, noSniff+": nosniff\r\n"...)
}

// addText adds a field from metadata, which need not have come over HTTP.
func (a *answer) addText(name, value string) {
	if value != "" && visible(value) {
		a.add(name, value)
	}
}

// add adds a field. Its value is visible.
func (a *answer) add(name, value string) {
	a.fields = append(append(a.fields, name...), ": "...)
	a.fields = append(append(a.fields, textproto.TrimString(value)...), "\r\n"...)
}

// header is the fields by name.
func (a *answer) header() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for line := range bytes.Lines(a.fields) {
			name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
			if !yield(string(name), string(value)) {
				return
			}
		}
	}
}
