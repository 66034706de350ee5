package server

import (
	"bytes"
	"math"
	"strconv"
)

// framing follows where requests begin and end in the bytes that a connection
// brings to net/http, and stops what somebody else could divide up in another
// way: behind a proxy that does, a client could smuggle a request past it. Here
// net/http is not as strict as RFC 9112, and a handler can't see it:
//
//   - Transfer-Encoding beside Content-Length, or in HTTP/1.0: net/http drops one
//     of them and the connection goes on, which it must not (section 6.1)
//   - a line that ends with LF alone, or goes on in the next one, which the
//     standard allows to be refused (2.2, 5.2)
//   - CR elsewhere than at the end of a line, which it does not take for one
//     everywhere, and skips before what follows a POST (2.2)
//
// A body is skipped by its length. What is refused gets the answer of net/http to what nobody can read, 400 and the
// end of the connection: the end of the line becomes a NUL, and nothing follows
// but what net/http waits for before it looks at a request.
type framing struct {
	state framingState
	line  []byte // the beginning of the one under way
	left  int64  // of a body, of a chunk and the end of its line, or of all

	begun bool // the connection
	old   bool // the request is of HTTP/1.0
	coded bool // and has a Transfer-Encoding
	sized bool // and a Content-Length
}

type framingState int

const (
	inRequestLine framingState = iota
	inHeader
	inBody
	inChunkSize
	inTrailer
	refusing
	encrypted // it is TLS
)

// tlsHandshake is the first byte of a connection that is encrypted, and of no
// request.
const tlsHandshake = 0x16

// over reports whether net/http gets nothing more.
func (f *framing) over() bool { return f.state == refusing && f.left == 0 }

// follow looks at the next bytes and returns what net/http may have of them, in
// the same memory.
func (f *framing) follow(p []byte) []byte {
	if !f.begun && len(p) > 0 {
		if f.begun = true; p[0] == tlsHandshake {
			f.state = encrypted
		}
	}
	for i := 0; i < len(p); {
		switch f.state {
		case encrypted:
			return p
		case inBody:
			i += f.skip(len(p) - i)
			continue
		case refusing:
			n := int(min(f.left, int64(len(p)-i)))
			clear(p[i : i+n])
			f.left -= int64(n)
			return p[:i+n]
		}
		n := bytes.IndexByte(p[i:], '\n') + 1
		if n == 0 {
			f.line = append(f.line, p[i:]...)
			return p
		}
		line := p[i : i+n]
		if len(f.line) > 0 {
			f.line = append(f.line, line...)
			line, f.line = f.line, f.line[:0]
		}
		i += n
		if first := f.state == inRequestLine; !f.endLine(line) {
			p[i-1] = 0
			f.state, f.left = refusing, 0
			if first {
				f.left = int64(max(begin-len(line), 0))
			}
		}
	}
	return p
}

// skip takes up to n bytes of a body.
func (f *framing) skip(n int) int {
	n = int(min(f.left, int64(n)))
	f.left -= int64(n)
	switch {
	case f.left > 0:
	case f.coded:
		f.state = inChunkSize
	default:
		f.end()
	}
	return n
}

// endLine judges a line that has come to its end, and returns false if it has to
// be refused. What is not even a line of its kind is left to net/http.
func (f *framing) endLine(line []byte) bool {
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	switch {
	case !ok || bytes.IndexByte(line, '\r') >= 0:
		return false
	case f.state == inRequestLine && len(line) > 0:
		f.state = inHeader
		f.old = bytes.HasSuffix(line, []byte(" HTTP/1.0"))
	case f.state == inHeader && len(line) > 0:
		return f.field(line)
	case f.state == inHeader:
		f.beginBody()
	case f.state == inChunkSize:
		return f.beginChunk(line)
	case f.state == inTrailer && len(line) == 0:
		f.end()
	}
	return true
}

// field looks at a line of the header.
func (f *framing) field(line []byte) bool {
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return false
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		f.coded = true
	case bytes.EqualFold(name, []byte("Content-Length")):
		// net/http refuses what is not a number, and a second one that is
		// another.
		f.sized = true
		f.left, _ = strconv.ParseInt(string(bytes.Trim(value, " \t")), 10, 64)
	}
	return !f.coded || !f.old && !f.sized
}

// beginBody is at the end of a header.
func (f *framing) beginBody() {
	switch {
	case f.coded:
		f.state = inChunkSize
	case f.left > 0:
		f.state = inBody
	default:
		f.end()
	}
}

// beginChunk reads the size of a chunk, as net/http does.
func (f *framing) beginChunk(line []byte) bool {
	digits, _, _ := bytes.Cut(bytes.TrimRight(line, " \t"), []byte(";"))
	n, err := strconv.ParseUint(string(digits), 16, 64)
	switch {
	case err != nil || n > math.MaxInt64-2:
		return false
	case n == 0:
		f.state = inTrailer
	default:
		f.state, f.left = inBody, int64(n)+2
	}
	return true
}

// end is the end of a request.
func (f *framing) end() {
	*f = framing{line: f.line, begun: true}
	if cap(f.line) > 1<<10 {
		f.line = nil // an idle connection keeps little
	}
}
