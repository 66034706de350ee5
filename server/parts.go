package server

import (
	"crypto/rand"
	"io"
	"net/http"
)

// maxPartsExtra is how much longer than the value the body of a response with
// several parts of it may be, for what stands between them.
const maxPartsExtra = 4 << 10

// part is a part of a value in a body, and the text that belongs before it if
// the body has several. The last one of several has no bytes: it is the end.
type part struct {
	text []byte
	span
}

// content is what a response has of a value.
type content struct {
	status       int
	contentType  string
	contentRange []byte // nil unless it is a single part
	length       int64  // of the body
	first        part
	after        []part
}

// contentFor is what a response to a request with a Range, or none, has of a
// value. It returns false if no range is within the value.
func contentFor(ranges string, size int64, contentType string) (content, bool) {
	c := content{status: http.StatusOK, contentType: contentType, length: size, first: part{span: span{0, size}}}
	var room [maxRanges]span
	switch parts, kind := parseRange(room[:0], ranges, size); {
	case kind == unsatisfiable:
		return c, false
	case len(parts) == 1:
		c.status, c.length, c.first.span = http.StatusPartialContent, parts[0].n, parts[0]
		c.contentRange = parts[0].appendContentRange(nil, size)
	case len(parts) > 1:
		if m := byteranges(parts, size, contentType); m.length <= size+maxPartsExtra {
			return m, true
		}
	}
	return c, true
}

// byteranges is the content of several parts, in the form of RFC 9110, section
// 14.6.
func byteranges(parts []span, size int64, contentType string) content {
	boundary := rand.Text() // no value has it, by chance or on purpose
	c := content{status: http.StatusPartialContent, contentType: "multipart/byteranges; boundary=" + boundary}
	list := make([]part, 0, len(parts)+1)
	delimiter := "--" + boundary
	for _, s := range parts {
		text := []byte(delimiter + "\r\nContent-Type: " + contentType + "\r\nContent-Range: ")
		list = append(list, part{append(s.appendContentRange(text, size), "\r\n\r\n"...), s})
		delimiter = "\r\n--" + boundary
	}
	list = append(list, part{text: []byte(delimiter + "--\r\n")})
	for _, p := range list {
		c.length += int64(len(p.text)) + p.n
	}
	c.first, c.after = list[0], list[1:]
	return c
}

// take makes a part the one that is sent next.
func (b *body) take(p part) {
	b.text, b.off, b.n = p.text, p.off, p.n
	b.large, b.ready = p.n >= sendfileMin, nil
}

// nextPart goes on to the next part, if there is one.
func (b *body) nextPart() bool {
	if len(b.after) == 0 {
		return false
	}
	b.take(b.after[0])
	b.after = b.after[1:]
	return true
}

// sendTo sends a header, if any, and what is left without a copy of the value in
// user space. It counts the bytes of the body only, and a text between them once
// something behind it has left.
func (b *body) sendTo(s socket, header []byte) (sent int64, err error) {
	header = append(header, b.text...)
	for {
		n, err := b.sendPart(s, header)
		if text := int64(len(b.text)); n > 0 || err == nil {
			sent += text
			b.departed.bytes += text
		}
		sent += n
		if err != nil || !b.nextPart() {
			return sent, err
		}
		header = b.text
	}
}

// WriteTo sends what is left to a socket as well as a socket can. Any other
// writer gets it with Write.
//
// In a server that is not ours the socket gets here too: the ReadFrom of a
// net.TCPConn ends in io.Copy, with a writer that still has the connection's
// SyscallConn.
func (b *body) WriteTo(w io.Writer) (sent int64, err error) {
	if s, ok := w.(socket); ok {
		return b.sendTo(s, nil)
	}
	for {
		n, err := b.copyPart(w)
		sent += n
		if err != nil || !b.nextPart() {
			return sent, err
		}
	}
}
