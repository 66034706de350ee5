package db

import (
	"io"
	"runtime"
	"syscall"

	"github.com/crowfly/crowfly/segment/vfs"
)

// sendStep is how much WriteTo verifies and sends at a time, in bytes. The
// value passes through the processor's cache once, for the checksum, and is
// sent while it is there.
const sendStep = 4 << 20

// WriteTo implements [io.WriterTo]: it sends the value from the present
// position on. A TCP connection gets it by sendfile, with no copy in user
// space, any other writer as Range returns it. TCP_CORK is not set afterwards,
// whatever it was before.
func (v *Value) WriteTo(w io.Writer) (sent int64, err error) {
	for v.pos < v.Size() && err == nil {
		var n int64
		n, err = v.sendStep(w, min(sendStep, v.Size()-v.pos))
		v.pos += n
		sent += n
	}
	return sent, err
}

func (v *Value) sendStep(w io.Writer, n int64) (int64, error) {
	if conn, ok := w.(syscall.Conn); ok {
		raw, err := conn.SyscallConn()
		if err == nil {
			src, err := v.check(v.pos, n)
			if err != nil {
				return 0, err
			}
			sent, handled, err := vfs.Send(raw, src.payload.File, src.payload.Offset+v.pos, n)
			runtime.KeepAlive(src)
			if handled {
				return sent, err
			}
		}
	}
	src := v.held.source.Load() // for as long as the writer has the slice
	b, err := v.Range(v.pos, n)
	if err != nil {
		return 0, err
	}
	written, err := w.Write(b)
	runtime.KeepAlive(src)
	if written == 0 && err == nil {
		err = io.ErrShortWrite
	}
	return int64(written), err
}
