package server

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// get answers GET and HEAD of a key.
func (x *exchange) get() {
	defer guard()()
	err := x.lend(x.q.key, vfs.Resident, func() {}, func(v db.Lent) error {
		a := answer{limit: responseTime{x.rc}}
		defer a.end()
		if err := a.get(x.Handler, &x.q, &v); err != nil {
			return err
		}
		x.answer(&a)
		return nil
	})
	if err != nil {
		x.fail(err)
	}
}

// fetchedValue is the size up to which a value is brought in with its record. The
// store itself does so with larger ones before it verifies them.
const fetchedValue = 64 << 10

// lend is [db.DB.Lend]. A record that is not in memory, as far as resident says, is
// brought in first with a system call, since to read it would keep a processor
// waiting; far is called before that.
func (h *Handler) lend(key []byte, resident func([]byte) bool, far func(), fn func(db.Lent) error) error {
	err := h.store.LendResident(key, resident, fn)
	if err != db.ErrNotResident {
		return err
	}
	far()
	_ = h.store.Prefetch(key, fetchedValue) // what the disk can't read is said by Lend
	return h.store.Lend(key, fn)
}

// responseTime is where the time for writing a response of net/http is set. One
// that has no deadlines goes on without.
type responseTime struct{ *http.ResponseController }

func (t responseTime) writeWithin(d time.Duration) { _ = t.SetWriteDeadline(time.Now().Add(d)) }

// answer has net/http send an answer.
func (x *exchange) answer(a *answer) {
	h := x.w.Header()
	for name, value := range a.header() {
		if strings.HasPrefix(name, userPrefix) {
			h.Add(name, value)
		} else {
			h.Set(name, value)
		}
	}
	x.writeHeader(a.status)
	switch {
	case a.body.n > 0:
		x.send(&a.body)
	case len(a.text) > 0 && x.r.Method != http.MethodHead:
		x.write(a.text)
	}
}

// send sends the body by the best way there is. If it can't be sent to the
// end the connection, or the stream of HTTP/2, is cut: that is the only way to
// tell the client.
func (x *exchange) send(b *body) {
	err := x.transfer(b)
	x.departed = b.departed
	if err == nil {
		return
	}
	x.departed.aborted = true
	if c := connOf(x.r); c != nil && x.r.ProtoMajor == 1 {
		_ = c.SetLinger(0) // see conn.writeNow
	}
	x.stats.aborted.Add(1)
	if ownFault(err) {
		x.log.Error("response cut off", "method", x.r.Method, "err", err)
	}
	panic(http.ErrAbortHandler)
}

// transfer chooses the way.
func (x *exchange) transfer(b *body) error {
	sink, direct := x.w.(io.ReaderFrom)
	switch {
	case x.r.ProtoMajor >= 2:
		b.reason = byHTTP2
	case x.r.TLS != nil:
		b.reason = byTLS
	case !direct:
		b.reason = byWrapped
	case connOf(x.r) == nil && !b.large && len(b.after) == 0:
		b.reason = byBuffer
	default:
		return x.transferToSocket(b, sink)
	}
	_, err := b.WriteTo(x.w)
	return err
}

// transferToSocket has net/http hand the body over to its connection. For that
// the header must be out of net/http's hands, else it would copy the beginning
// of the body to look at it.
func (x *exchange) transferToSocket(b *body, sink io.ReaderFrom) (err error) {
	if c := connOf(x.r); c != nil {
		c.hold()
		defer func() { err = cmp.Or(err, c.release()) }()
	}
	// A ResponseWriter that can't flush gets a copy of the beginning.
	if err := x.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err = sink.ReadFrom(b)
	return err
}

// ownFault reports whether a transfer failed on this side: the file is shorter
// than it was, or the disk can't read it. Everything else is a client that
// went away.
func ownFault(err error) bool {
	var damage *db.CorruptError
	return errors.As(err, &damage) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EFAULT)
}
