package vfs

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSend bounds one sendfile call, so that deadlines are looked at in between.
const maxSend = 4 << 20

// Send sends n bytes of src from off to a socket, as [Sender.Send] does.
func Send(conn syscall.RawConn, src File, off, n int64) (sent int64, handled bool, err error) {
	return NewSender(conn).Send(src, off, n)
}

// Sender sends parts of files to a socket without copying them through user
// space. It waits for the socket as a Write to it would, deadlines included.
//
// A file or a platform may not be able to do this. Then handled is false,
// nothing was sent and the caller copies.
//
// One goroutine at a time may use it. It does not allocate.
type Sender struct {
	// Resident says that all that is sent is in memory, see [Resident], and
	// that the socket does not block. Then the runtime does not hear of the
	// system calls: it would give the processor to others if they took as long
	// as sending 64 KiB does.
	Resident bool

	// Calls counts the system calls that send.
	Calls uint64

	conn    syscall.RawConn
	attempt func(fd uintptr) (done bool) // made once
	setCork func(fd uintptr)             // made once
	cork    int                          // what it sets

	header []byte // what is sent, or else
	file   int    // of which n bytes from pos on are
	pos    int64
	n      int

	moved int
	err   syscall.Errno
}

// NewSender returns one for a socket.
func NewSender(conn syscall.RawConn) *Sender {
	s := &Sender{conn: conn}
	s.attempt, s.setCork = s.try, s.setCorkOf
	return s
}

// corkMin is how many bytes must be about to be sent for TCP_CORK to be worth two
// system calls. Without it the kernel sends a segment that is not full yet whenever
// something is acknowledged meanwhile. On loopback it saves 9 to 17 % of all CPU at 1
// and 64 MiB.
const corkMin = 512 << 10

// Send sends n bytes of src from off. Many of them it sends with TCP_CORK set, see
// tcp(7), which it takes back. If it was handled sent says how much has
// left, also with an error. A file that ends early is io.ErrUnexpectedEOF.
func (s *Sender) Send(src File, off, n int64) (sent int64, handled bool, err error) {
	f := src.OS()
	if f == nil {
		return 0, false, nil
	}
	defer runtime.KeepAlive(f)
	if n >= corkMin {
		s.corked(1)
		defer s.corked(0)
	}
	s.header, s.file = nil, int(f.Fd())
	for sent < n {
		s.pos, s.n = off+sent, int(min(n-sent, maxSend))
		if err := s.conn.Write(s.attempt); err != nil {
			return sent, true, err
		}
		switch {
		case s.err != 0 && sent == 0 && unsupported(s.err):
			return 0, false, nil
		case s.err != 0:
			return sent, true, &os.PathError{Op: "sendfile", Path: f.Name(), Err: s.err}
		case s.moved == 0:
			return sent, true, fmt.Errorf("%s: file shorter than its index says: %w", f.Name(), io.ErrUnexpectedEOF)
		}
		sent += int64(s.moved)
	}
	return sent, true, nil
}

// corked sets TCP_CORK. Whatever has none does without.
func (s *Sender) corked(on int) {
	s.cork = on
	_ = s.conn.Control(s.setCork)
}

func (s *Sender) setCorkOf(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, s.cork)
}

// Header sends a header and tells the kernel that more follows, so that it
// leaves in one segment with the first bytes that Send adds. Only for a header
// with a body: otherwise it would wait in the kernel.
func (s *Sender) Header(header []byte) (handled bool, err error) {
	defer func() { s.header = nil }()
	for s.header = header; len(s.header) > 0; s.header = s.header[s.moved:] {
		if err := s.conn.Write(s.attempt); err != nil {
			return true, err
		}
		switch {
		case s.err != 0 && len(s.header) == len(header) && unsupported(s.err):
			return false, nil
		case s.err != 0:
			return true, os.NewSyscallError("sendto", s.err)
		}
	}
	return true, nil
}

// try makes a system call, until no signal interrupts it.
func (s *Sender) try(fd uintptr) (done bool) {
	for {
		s.Calls++
		n, e := s.call(fd)
		if e != unix.EINTR {
			s.moved, s.err = int(n), e
			return e != unix.EAGAIN
		}
	}
}

func (s *Sender) call(fd uintptr) (n uintptr, e syscall.Errno) {
	if s.header != nil {
		return s.sendto(fd)
	}
	return s.sendfile(fd)
}

func (s *Sender) sendto(fd uintptr) (n uintptr, e syscall.Errno) {
	const how = unix.MSG_MORE | unix.MSG_NOSIGNAL
	p := unsafe.Pointer(unsafe.SliceData(s.header))
	if s.Resident {
		n, _, e = syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(p), uintptr(len(s.header)), how, 0, 0)
	} else {
		n, _, e = syscall.Syscall6(unix.SYS_SENDTO, fd, uintptr(p), uintptr(len(s.header)), how, 0, 0)
	}
	return n, e
}

// wide says that the system call of this number takes offsets of 64 bits.
const wide = ^uintptr(0)>>63 == 1

// sendfile reads at a position of its own and not at that of the descriptor,
// which many senders share.
func (s *Sender) sendfile(fd uintptr) (n uintptr, e syscall.Errno) {
	if s.Resident && wide {
		n, _, e = syscall.RawSyscall6(unix.SYS_SENDFILE, fd, uintptr(s.file), uintptr(unsafe.Pointer(&s.pos)), uintptr(s.n), 0, 0)
		return n, e
	}
	k, err := unix.Sendfile(int(fd), s.file, &s.pos, s.n)
	e, _ = err.(syscall.Errno)
	return uintptr(k), e
}

// unsupported reports whether a system call failed because it does not exist
// for this pair of file and connection.
func unsupported(err syscall.Errno) bool {
	switch err {
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOTSOCK:
		return true
	}
	return false
}
