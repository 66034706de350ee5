package server

import (
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultMaxConns = 10_000

	// The memory for bodies: at most, and one part in so many of what there is.
	// The collector may leave as much unused, and the store needs some as well.
	mostInFlight = 256 << 20
	inFlightPart = 4

	// maxOpsConns is how many connections there may be to what ServeMetrics
	// serves, which must answer when all others are taken.
	maxOpsConns = 100
)

// maxConns is how many connections there may be at once. The store needs
// descriptors as well, so they get half of those that the process may have.
func maxConns(wanted int) int {
	if wanted <= 0 {
		wanted = defaultMaxConns
	}
	return max(1, int(min(uint64(wanted), maxDescriptors()/2)))
}

// DefaultMaxInFlight is Options.MaxInFlight unless it is set: a quarter of the
// memory that this process may have by GOMEMLIMIT, its control group and the
// machine, and 256 MiB at most.
func DefaultMaxInFlight() int64 {
	least := min(debug.SetMemoryLimit(-1), controlGroupLimit(), machineMemory())
	return max(1, min(least/inFlightPart, mostInFlight))
}

// MemoryLimit is what the control group of this process leaves it, in bytes, or
// math.MaxInt64 if that is unlimited.
func MemoryLimit() int64 { return controlGroupLimit() }

// listener makes a conn of each TCP connection. It has a slot for each
// connection that is open, and when there is none left new ones wait where they
// are, in the kernel, in the order in which they came: the deadlines of those
// that are open see to it that slots become free. To answer them with 503 would
// take descriptors as well, and would not get through encrypted, nor safely to a
// client that is sending its request already. Nor is an idle connection closed for
// a new one: whoever opens thousands would get rid of all others so.
type listener struct {
	net.Listener
	pace  pace
	slots chan struct{} // filled by open connections, of all listeners
	stats *counters
	log   *slog.Logger

	told   time.Time // the log, that there were no slots
	end    sync.Once
	closed chan struct{}
}

func (h *Handler) listener(l net.Listener, slots chan struct{}) *listener {
	return &listener{Listener: l, pace: h.pace, slots: slots, stats: &h.stats, log: h.log, closed: make(chan struct{})}
}

// Accept implements [net.Listener]. One connection may be there without a slot,
// and be the next.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.take() {
		c.Close()
		return nil, net.ErrClosed
	}
	free := sync.OnceFunc(func() { <-l.slots })
	if t, ok := c.(*net.TCPConn); ok {
		return &conn{TCPConn: t, time: writeTime{pace: l.pace}, free: free}, nil
	}
	return &otherConn{Conn: c, time: writeTime{pace: l.pace}, free: free}, nil
}

// take waits for a slot. It returns false if the listener is closed first: net/http
// does not close connections before it has left here.
func (l *listener) take() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	l.stats.waited.Add(1)
	if time.Since(l.told) > time.Minute {
		l.told = time.Now()
		l.log.Warn("new connections have to wait: as many as may be are open", "connections", cap(l.slots))
	}
	select {
	case l.slots <- struct{}{}:
		return true
	case <-l.closed:
		return false
	}
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	l.end.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// otherConn is a connection that is not TCP.
type otherConn struct {
	net.Conn
	time   writeTime
	free   func()
	ending ending
}

// SetWriteDeadline implements [net.Conn].
func (c *otherConn) SetWriteDeadline(t time.Time) error { return c.time.set(c.Conn, t) }

// Write implements [net.Conn].
func (c *otherConn) Write(p []byte) (int, error) {
	if err := c.time.begin(c.Conn, len(p)); err != nil {
		return 0, err
	}
	c.ending.wrote(p)
	return c.Conn.Write(p)
}

// Close implements [net.Conn].
func (c *otherConn) Close() error { return c.ending.close(c.Conn, c.time.pace, c.free) }

// budget is the memory that bodies under way may take together, in bytes.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take takes n bytes for a body that has some already, if they are there. If nobody
// else has any they are, however many: else there would be bodies that never get
// through.
func (b *budget) take(n, has int64) bool {
	for {
		used := b.used.Load()
		if n > 0 && used+n > b.limit && used > has {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// give gives n bytes back.
func (b *budget) give(n int64) { b.used.Add(-n) }
