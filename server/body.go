package server

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

const (
	// sendfileMin is the size from which a body goes by sendfile. Below it
	// one writev of header and mapping costs less than a send of the header
	// and a sendfile (3.4 against 3.8 us at 4 KiB), above it more (8.7
	// against 6.0 us at 64 KiB); around it there is little between them.
	sendfileMin = 16 << 10

	// sendPiece is how much is sent under one write deadline.
	sendPiece = 4 << 20
)

// body is the part of a value that a response carries, or several of them, see
// parts.go. It knows every way to a client: it is what package net/http copies
// from, what a socket is fed from and what is read if all else fails. Each of
// them sends what the ones before have left.
type body struct {
	stats  *counters
	pace   pace
	limit  deadline
	reason copyReason // why it will be copied, if it will

	value  db.Lent
	text   []byte // to be sent first, see part
	off, n int64  // what is left, within the value
	ready  []byte // the beginning of it, verified: a slice of the mapping
	large  bool   // to be sent from the file
	after  []part // behind all that

	departed departure

	vec vector
}

// deadline is where the time for a write is set, from now on.
type deadline interface{ writeWithin(d time.Duration) }

var _ io.WriterTo = (*body)(nil)

// begin makes parts of a value ready to be sent, and verifies the first piece.
func (b *body) begin(h *Handler, limit deadline, v *db.Lent, c *content) error {
	b.stats, b.pace, b.limit, b.value = &h.stats, h.pace, limit, *v
	b.take(c.first)
	b.after = c.after
	return b.verify()
}

// verify makes sure that some of what is left is ready. A value that has one
// checksum, which is up to 1 MiB, was verified as a whole by begin, and of a
// larger one each piece is just before it is sent: it must not take the time
// to read gigabytes until the first byte leaves.
func (b *body) verify() (err error) {
	if len(b.ready) > 0 || b.n == 0 {
		return nil
	}
	defer func() {
		if fault := recover(); fault != nil {
			err = faultError(fault, b.off)
		}
	}()
	b.ready, err = b.value.Range(b.off, min(b.n, sendPiece))
	return err
}

// faultError is the error for a panic of guard. Others go on.
func faultError(r any, off int64) error {
	if fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		return fmt.Errorf("value from byte %d on: %w: %w", off, fault, syscall.EIO)
	}
	panic(r)
}

// advance drops the first n bytes of what is left, which have left in some way.
func (b *body) advance(n int64, way string) {
	b.departed.add(n, way)
	b.off += n
	b.n -= n
	b.ready = b.ready[n:]
}

// Read copies. It is for a ResponseWriter that insists on it.
func (b *body) Read(p []byte) (int, error) {
	for b.n == 0 && len(b.text) == 0 {
		if !b.nextPart() {
			return 0, io.EOF
		}
	}
	if len(b.text) > 0 {
		n := copy(p, b.text)
		b.text = b.text[n:]
		b.departed.add(int64(n), wayCopied[b.reason])
		return n, nil
	}
	if err := b.verify(); err != nil {
		return 0, err
	}
	n := copy(p, b.ready)
	b.stats.copied[b.reason].Add(uint64(n))
	b.advance(int64(n), wayCopied[b.reason])
	return n, nil
}

// copyPart writes what is left of this part.
func (b *body) copyPart(w io.Writer) (int64, error) {
	var sent int64
	if len(b.text) > 0 {
		b.setDeadline(int64(len(b.text)))
		n, err := w.Write(b.text)
		b.text = b.text[n:]
		b.departed.add(int64(n), wayCopied[b.reason])
		if sent += int64(n); err != nil {
			return sent, err
		}
	}
	for b.n > 0 {
		if err := b.verify(); err != nil {
			return sent, err
		}
		b.setDeadline(int64(len(b.ready)))
		n, err := w.Write(b.ready)
		b.stats.copied[b.reason].Add(uint64(n))
		b.advance(int64(n), wayCopied[b.reason])
		sent += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// socket is a connection with a descriptor.
type socket interface {
	io.Writer
	syscall.Conn
}

// sendPart sends a header, if any, and what is left of this part. It counts the
// bytes of the value only.
func (b *body) sendPart(s socket, header []byte) (int64, error) {
	if b.n == 0 {
		b.setDeadline(int64(len(header)))
		_, err := s.Write(header)
		return 0, err
	}
	if !b.large {
		return b.writeMapped(s, header)
	}
	sender, err := senderOf(s)
	if err != nil {
		return 0, err
	}
	if err := b.sendHeader(s, sender, header); err != nil {
		return 0, err
	}
	sent, handled, err := b.sendFile(sender)
	if handled {
		return sent, err
	}
	b.stats.refused.Add(1)
	n, err := b.writeMapped(s, nil)
	return sent + n, err
}

// senderOf returns what sends files to a socket.
func senderOf(s socket) (*vfs.Sender, error) {
	if s, ok := s.(stream); ok {
		return s.sender(), nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	return vfs.NewSender(raw), nil
}

// sendHeader sends a header that is to leave together with the body.
func (b *body) sendHeader(s socket, sender *vfs.Sender, header []byte) error {
	if len(header) == 0 {
		return nil
	}
	b.setDeadline(int64(len(header)))
	handled, err := sender.Header(header)
	if !handled {
		_, err = s.Write(header)
	}
	return err
}

// sendFile has the kernel send what is left from the file. If the kernel can't,
// handled is false and the rest is to go another way.
func (b *body) sendFile(sender *vfs.Sender) (sent int64, handled bool, err error) {
	file := b.value.Extent()
	for b.n > 0 {
		if err := b.verify(); err != nil {
			return sent, true, err
		}
		want := int64(len(b.ready))
		b.setDeadline(want)
		sender.Calls = 0
		n, handled, err := sender.Send(file.File, file.Offset+b.off, want)
		if !handled {
			return sent, false, err
		}
		b.stats.send(n, n == want, sender.Calls)
		b.advance(n, waySendfile)
		sent += n
		if err != nil {
			return sent, true, err
		}
	}
	return sent, true, nil
}

// writeMapped writes a header, if any, and what is left from the mapping; the
// first piece leaves in one writev with the header.
func (b *body) writeMapped(s socket, header []byte) (int64, error) {
	var sent int64
	for b.n > 0 {
		if err := b.verify(); err != nil {
			return sent, err
		}
		b.setDeadline(int64(len(b.ready)))
		n, err := b.writeBoth(s, header)
		n = max(n-int64(len(header)), 0)
		header = nil
		b.stats.mapped.Add(uint64(n))
		b.advance(n, wayMapped)
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// writeBoth writes a header, if any, and what is ready, with one call if it can.
func (b *body) writeBoth(s socket, header []byte) (int64, error) {
	if s, ok := s.(stream); ok {
		return s.writeBoth(header, b.ready)
	}
	return b.vec.write(s, header, b.ready)
}

// vector is what leaves with one writev.
type vector struct {
	parts [2][]byte
	vec   net.Buffers
}

func (v *vector) write(w io.Writer, header, body []byte) (int64, error) {
	v.parts = [2][]byte{header, body}
	v.vec = v.parts[:]
	if len(header) == 0 {
		v.vec = v.parts[1:]
	}
	n, err := v.vec.WriteTo(w)
	v.parts = [2][]byte{} // what is lent is not kept
	return n, err
}

// setDeadline gives the next n bytes their time.
func (b *body) setDeadline(n int64) { b.limit.writeWithin(b.pace.time(n)) }
