package server

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/crowfly/crowfly/segment/vfs"
)

// stream is what a fastConn needs of a connection.
type stream interface {
	socket

	// looped says that Read does not wait: it returns errLater if nothing has
	// come. Then the goroutine is to leave the connection alone until
	// something has.
	looped() bool
	Read(p []byte) (int, error)

	// mayWait tells that the goroutine may have to wait, for whatever it is.
	mayWait()

	// resident is [vfs.Resident], or was lately.
	resident(p []byte) bool

	// fill reads until p is full, but no longer than d.
	fill(p []byte, d time.Duration) (int, error)

	// sender sends files, to be used at once.
	sender() *vfs.Sender

	// writeBoth writes a header, if any, and a body, with one call if it can.
	writeBoth(header, body []byte) (int64, error)

	// readWithin says how long Read may take from a moment on, and writeWithin
	// how long all writing may take from now on.
	readWithin(d time.Duration, from time.Time)
	writeWithin(d time.Duration)

	RemoteAddr() net.Addr
	SetLinger(seconds int) error
	Close() error
	abort() // ends waiting, and is for any goroutine

	// tcp is the connection without deadlines, for net/http. The stream is not
	// used any more then.
	tcp() (*net.TCPConn, error)
}

var errLater = errors.New("nothing has come yet")

// tcpStream is one whose goroutine waits for it.
type tcpStream struct {
	*net.TCPConn
	files   *vfs.Sender
	grace   time.Duration // the least time for a write
	readBy  time.Time
	writeBy time.Time
	vec     vector
}

func newTCPStream(c *net.TCPConn, grace time.Duration) (*tcpStream, error) {
	raw, err := c.SyscallConn()
	return &tcpStream{TCPConn: c, files: vfs.NewSender(raw), grace: grace}, err
}

// readWithin sets the deadline for reading, unless one stands that is nearly
// the same: to set one for each request costs more than to read the time.
func (s *tcpStream) readWithin(d time.Duration, from time.Time) {
	if t := from.Add(d); !nearly(s.readBy, t, d) {
		_ = s.SetReadDeadline(t)
		s.readBy = t
	}
}

// writeWithin does the same for writing.
func (s *tcpStream) writeWithin(d time.Duration) {
	if t := time.Now().Add(d); !nearly(s.writeBy, t, s.grace) {
		_ = s.SetWriteDeadline(t)
		s.writeBy = t
	}
}

// nearly reports whether a deadline leaves most of the time d that a new one, t,
// would give, and no more.
func nearly(stands, t time.Time, d time.Duration) bool {
	early := t.Sub(stands)
	return early >= 0 && early < d/16
}

func (s *tcpStream) fill(p []byte, d time.Duration) (int, error) {
	s.readBy = time.Now().Add(d)
	_ = s.SetReadDeadline(s.readBy)
	return io.ReadFull(s.TCPConn, p)
}

func (s *tcpStream) writeBoth(header, body []byte) (int64, error) {
	return s.vec.write(s.TCPConn, header, body)
}

func (s *tcpStream) looped() bool { return false }

func (s *tcpStream) mayWait() {}

func (s *tcpStream) resident(p []byte) bool { return vfs.Resident(p) }

func (s *tcpStream) sender() *vfs.Sender { return s.files }

func (s *tcpStream) abort() { s.Close() }

func (s *tcpStream) tcp() (*net.TCPConn, error) {
	return s.TCPConn, s.SetDeadline(time.Time{})
}
