package server

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/segment/vfs"
)

// loopStream is a connection that a loop watches. It belongs to the goroutine
// that has taken it.
type loopStream struct {
	fd     int
	client net.Addr
	number int32 // in the loop
	loop   *loop
	conn   *fastConn
	leads  *loop // that the goroutine leads, if it does: then it must not wait

	came  atomic.Bool   // something has, while the connection was taken
	event chan struct{} // has one then, for who waits for it
	short atomic.Bool   // there may be more behind a short read: an urgent byte, or the end
	cut   atomic.Bool   // the server must not wait any longer

	unread  bool // there may be something that no event will tell of
	full    bool // there is an event when something can be written again
	readBy  time.Time
	writeIn time.Duration // after
	writeBy time.Time     // or at, unless zero
	timer   *time.Timer
	files   *vfs.Sender
	vec     [2]unix.Iovec
}

// loopWatched are the events of all connections. Each is told once, so what one
// tells of must be read to the end.
const loopWatched = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// take makes a connection that rests the caller's, who leads the loop. Whoever
// has it otherwise hears that something has come.
func (s *loopStream) take() bool {
	state := &s.conn.state
	for !state.CompareAndSwap(connIdle, connActive) {
		s.tell()
		if state.Load() != connIdle {
			return false
		}
	}
	return true
}

func (s *loopStream) tell() {
	s.came.Store(true)
	select {
	case s.event <- struct{}{}:
	default:
	}
}

// rest gives a connection back to the loop. If it returns false the connection
// is the caller's again, since something has come before that. Else whoever has it
// by now hears of that.
func (s *loopStream) rest() bool {
	state := &s.conn.state
	state.Store(connIdle)
	if s.conn.from.fast.stopping.Load() {
		s.conn.closeIdle()
		return true
	}
	if !s.came.Load() || !state.CompareAndSwap(connIdle, connActive) {
		return true
	}
	s.came.Store(false)
	select {
	case <-s.event:
	default:
	}
	return false
}

// turn serves a connection until it rests or is no more. It reports whether the
// caller still leads the loop.
func (s *loopStream) turn(l *loop) (leads bool) {
	s.leads = l
	s.unread = true
	rests := s.conn.serve()
	leads = s.leads != nil
	s.leads = nil
	if rests && !s.rest() {
		if leads {
			return s.turn(l)
		}
		s.serve()
	}
	return leads
}

// serve serves a connection for a goroutine that leads no loop.
func (s *loopStream) serve() {
	for s.unread = true; s.conn.serve() && !s.rest(); s.unread = true {
	}
}

// looped implements [stream].
func (s *loopStream) looped() bool { return true }

// mayWait implements [stream].
func (s *loopStream) mayWait() {
	if l := s.leads; l != nil {
		s.leads = nil
		go l.begin()
	}
	if s.files != nil {
		s.files.Resident = false // it may not be any more after that
	}
}

// resident implements [stream].
func (s *loopStream) resident(p []byte) bool {
	if l := s.leads; l != nil {
		return l.used.resident(p, l.now)
	}
	return vfs.Resident(p)
}

// sender implements [stream]. What a leader sends is in memory.
func (s *loopStream) sender() *vfs.Sender {
	if s.files == nil {
		s.files = vfs.NewSender((*rawStream)(s))
	}
	s.files.Resident = s.leads != nil
	return s.files
}

func (s *loopStream) readWithin(d time.Duration, from time.Time) { s.readBy = from.Add(d) }

func (s *loopStream) writeWithin(d time.Duration) { s.writeIn, s.writeBy = d, time.Time{} }

// wait waits for an event.
func (s *loopStream) wait(by time.Time) error {
	if s.cut.Load() {
		return net.ErrClosed
	}
	if s.timer == nil {
		s.timer = time.NewTimer(time.Until(by))
	} else {
		s.timer.Reset(time.Until(by))
	}
	defer s.timer.Stop()
	select {
	case <-s.event:
		s.unread = true
		return nil
	case <-s.timer.C:
		return os.ErrDeadlineExceeded
	}
}

// Read does not wait. It returns errLater if nothing has come.
func (s *loopStream) Read(p []byte) (int, error) {
	if !s.unread {
		return 0, errLater
	}
	n, err := s.readNow(p)
	switch {
	case err == unix.EAGAIN:
		s.unread = false
		return 0, errLater
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	s.unread = n == len(p) || s.short.Load()
	return n, nil
}

func (s *loopStream) fill(p []byte, d time.Duration) (n int, err error) {
	by := time.Now().Add(d)
	for n < len(p) && err == nil {
		var k int
		k, err = s.Read(p[n:])
		n += k
		if err == errLater {
			err = s.wait(by)
		}
	}
	return n, err
}

// Write implements [io.Writer].
func (s *loopStream) Write(p []byte) (int, error) {
	n, err := s.writeBoth(nil, p)
	return int(n), err
}

func (s *loopStream) writeBoth(header, body []byte) (sent int64, err error) {
	for {
		if s.cut.Load() {
			return sent, net.ErrClosed
		}
		n, err := s.writeNow(header, body)
		switch {
		case err == unix.EAGAIN:
			if err := s.waitForRoom(); err != nil {
				return sent, err
			}
		case err != nil:
			return sent, os.NewSyscallError("writev", err)
		}
		sent += int64(n)
		k := min(n, len(header))
		header, body = header[k:], body[n-k:]
		if len(header)+len(body) == 0 {
			return sent, nil
		}
	}
}

// waitForRoom waits until something can be written again. Its time began when
// there was no room first, which is soon after writeWithin.
func (s *loopStream) waitForRoom() error {
	s.mayWait()
	if s.writeBy.IsZero() {
		s.writeBy = time.Now().Add(s.writeIn)
	}
	if !s.full {
		s.full = true
		event := unix.EpollEvent{Events: loopWatched | unix.EPOLLOUT, Fd: s.number}
		if err := unix.EpollCtl(s.loop.epoll, unix.EPOLL_CTL_MOD, s.fd, &event); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return s.wait(s.writeBy)
}

// RemoteAddr implements [stream].
func (s *loopStream) RemoteAddr() net.Addr { return s.client }

// SyscallConn implements [syscall.Conn].
func (s *loopStream) SyscallConn() (syscall.RawConn, error) { return (*rawStream)(s), nil }

// SetLinger is that of a net.TCPConn.
func (s *loopStream) SetLinger(seconds int) error {
	return unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
}

// Close implements [stream], for who has the connection.
func (s *loopStream) Close() error {
	if s.fd < 0 {
		return nil
	}
	return unix.Close(s.release())
}

// release takes a connection out of the loop.
func (s *loopStream) release() (fd int) {
	fd, s.fd = s.fd, -1
	if s.conn != nil {
		s.conn.state.Store(connClosed)
		s.loop.leave(s)
	}
	return fd
}

// abort implements [stream].
func (s *loopStream) abort() {
	s.cut.Store(true)
	s.tell()
}

// tcp implements [stream].
func (s *loopStream) tcp() (*net.TCPConn, error) {
	// It has another descriptor soon, so that closing this one does not
	// end the watch.
	err := unix.EpollCtl(s.loop.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	f := os.NewFile(uintptr(s.release()), "")
	defer f.Close()
	if err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// rawStream is a loopStream for those who bring their own system calls.
type rawStream loopStream

// Control implements [syscall.RawConn].
func (s *rawStream) Control(f func(fd uintptr)) error {
	f(uintptr(s.fd))
	return nil
}

// Read implements [syscall.RawConn], but nobody needs it.
func (s *rawStream) Read(f func(fd uintptr) (done bool)) error { return syscall.EINVAL }

// Write implements [syscall.RawConn].
func (s *rawStream) Write(f func(fd uintptr) (done bool)) error {
	for !s.cut.Load() {
		if f(uintptr(s.fd)) {
			return nil
		}
		if err := (*loopStream)(s).waitForRoom(); err != nil {
			return err
		}
	}
	return net.ErrClosed
}

// silent reports whether nothing has come that was not read, not even the end.
func (s *loopStream) silent() bool {
	var p [1]byte
	_, _, err := unix.Recvfrom(s.fd, p[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}

// readNow reads what has come. It never waits, so the runtime need not know of
// the system call.
func (s *loopStream) readNow(p []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e != unix.EINTR {
			return result(n, e)
		}
	}
}

// writeNow writes what there is room for. What a leader writes is in memory, so
// it does not wait either; otherwise a page may have to come from disk.
func (s *loopStream) writeNow(header, body []byte) (int, error) {
	what, from, count := uintptr(unix.SYS_WRITE), unsafe.Pointer(unsafe.SliceData(body)), len(body)
	if len(header) > 0 {
		s.vec = [2]unix.Iovec{{Base: unsafe.SliceData(header)}, {Base: unsafe.SliceData(body)}}
		s.vec[0].SetLen(len(header))
		s.vec[1].SetLen(len(body))
		defer func() { s.vec = [2]unix.Iovec{} }() // what is lent is not kept
		what, from, count = unix.SYS_WRITEV, unsafe.Pointer(&s.vec), len(s.vec)
	}
	for {
		var n uintptr
		var e syscall.Errno
		if s.leads != nil {
			n, _, e = syscall.RawSyscall(what, uintptr(s.fd), uintptr(from), uintptr(count))
		} else {
			n, _, e = syscall.Syscall(what, uintptr(s.fd), uintptr(from), uintptr(count))
		}
		if e != unix.EINTR {
			return result(n, e)
		}
	}
}

// result is that of a system call which moves n bytes.
func result(n uintptr, e syscall.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
