package vfs

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSend bounds one sendfile call, so that deadlines are looked at in between.
const maxSend = 4 << 20

// Send sends n bytes of src from off to a socket without copying them through
// user space. It waits for the socket as a Write to it would, deadlines
// included.
//
// If the file or the platform can't do this, handled is false, nothing was
// sent and the caller copies. Otherwise sent says how much has left, also with
// an error. A file that ends early is io.ErrUnexpectedEOF.
func Send(conn syscall.RawConn, src File, off, n int64) (sent int64, handled bool, err error) {
	f := src.OS()
	if f == nil {
		return 0, false, nil
	}
	in := int(f.Fd())
	defer runtime.KeepAlive(f)

	var k int
	var callErr error
	once := func(out uintptr) bool {
		k, callErr = sendfile(int(out), in, off+sent, int(min(n-sent, maxSend)))
		return callErr != unix.EAGAIN
	}
	for sent < n {
		if err := conn.Write(once); err != nil {
			return sent, true, err
		}
		switch {
		case callErr != nil && sent == 0 && unsupported(callErr):
			return 0, false, nil
		case callErr != nil:
			return sent, true, &os.PathError{Op: "sendfile", Path: f.Name(), Err: callErr}
		case k == 0:
			return sent, true, fmt.Errorf("%s: file shorter than its index says: %w", f.Name(), io.ErrUnexpectedEOF)
		}
		sent += int64(k)
	}
	return sent, true, nil
}

// sendfile reads at pos and not at the position of the descriptor, which many
// senders share.
func sendfile(out, in int, pos int64, n int) (int, error) {
	for {
		k, err := unix.Sendfile(out, in, &pos, n)
		if err != unix.EINTR {
			return k, err
		}
	}
}

// SendHeader sends header to a socket and tells the kernel that more follows,
// so that it leaves in one segment with the first bytes that [Send] adds. Only
// for a header with a body: otherwise it would wait in the kernel. If handled
// is false nothing was sent and the caller writes it.
func SendHeader(conn syscall.RawConn, header []byte) (handled bool, err error) {
	sent := 0
	var k int
	var callErr error
	once := func(fd uintptr) bool {
		k, callErr = sendMore(int(fd), header[sent:])
		return callErr != unix.EAGAIN
	}
	for sent < len(header) {
		if err := conn.Write(once); err != nil {
			return true, err
		}
		switch {
		case callErr != nil && sent == 0 && unsupported(callErr):
			return false, nil
		case callErr != nil:
			return true, os.NewSyscallError("sendmsg", callErr)
		}
		sent += k
	}
	return true, nil
}

func sendMore(fd int, p []byte) (int, error) {
	for {
		k, err := unix.SendmsgN(fd, p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return k, err
		}
	}
}

// unsupported reports whether a system call failed because it does not exist
// for this pair of file and connection.
func unsupported(err error) bool {
	switch err {
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOTSOCK:
		return true
	}
	return false
}
