package server

import (
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop watches connections that rest. One goroutine, its leader, takes those on
// which something has come and serves one after the other, as long as it need
// not wait for anything. Just before it does it has a new goroutine lead the
// loop, and goes on with what it has begun.
//
// So requests that come at the same time take one wait and no change of
// goroutines. With a goroutine for each connection, waking them takes more than
// answering small requests does.
//
// The descriptor of epoll is one that the runtime's own epoll watches: a leader
// that waits is a goroutine that waits, not a thread, once it has lingered for a
// moment in vain.
type loop struct {
	fast     *fastPath
	file     *os.File // epoll
	raw      syscall.RawConn
	epoll    int
	own      *os.File // eventfd, with which a leader waits for nothing but its turn
	ownRaw   syscall.RawConn
	patience time.Duration // the shortest time that a connection may rest
	load     atomic.Int64  // connections

	mu     sync.Mutex
	conns  []*loopStream // by number; nil where there is none
	free   []int32       // numbers below len(conns)
	led    bool          // there is a leader, as there must be if there are connections
	wakeAt time.Time     // when it wakes up by itself
	closed bool

	// What follows is the leader's.
	events  [loopEvents]unix.EpollEvent
	ready   [loopEvents]*loopStream
	next, n int       // ready[next:n] are to be served
	found   int       // events
	now     time.Time // when they came
	rested  time.Time // when the leader waited last, as goroutines do
	sweepAt time.Time // when a connection may have rested for too long
	used    usedMemory
	hot     bool // the last wait was short, so the next one may be as well
	poll    func(fd uintptr) bool
	asked   bool // for a turn
	ask     func(fd uintptr) bool
	begin   func() // lead
}

const (
	// loopEvents is how many connections a leader takes at once.
	loopEvents = 64

	// loopTurn is how long a leader keeps a processor before goroutines that
	// wait for one get it.
	loopTurn = time.Millisecond
)

// newLoops returns a loop for each processor.
func newLoops(f *fastPath) (list []*loop) {
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(f)
		if err != nil {
			break // connections do without, or with fewer
		}
		list = append(list, l)
	}
	return list
}

func newLoop(f *fastPath) (_ *loop, err error) {
	l := &loop{fast: f, patience: min(f.http.ReadHeaderTimeout, f.http.IdleTimeout)}
	defer func() {
		if err != nil {
			l.file.Close() // which does nothing if there is none
			l.own.Close()
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.file, l.raw, err = pollable(l.epoll, "epoll"); err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if l.own, l.ownRaw, err = pollable(fd, "eventfd"); err != nil {
		return nil, err
	}
	l.poll, l.ask, l.begin = l.pollAgain, l.askForTurn, l.lead // made once
	return l, nil
}

// pollable is a descriptor that the runtime watches, so that who waits for it is a
// goroutine and not a thread.
func pollable(fd int, name string) (*os.File, syscall.RawConn, error) {
	if err := unix.SetNonblock(fd, true); err != nil { // for os.NewFile
		unix.Close(fd)
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err == nil {
		err = f.SetDeadline(time.Time{}) // fails if a wait would block a thread
	}
	return f, raw, err
}

// close comes after the last connection.
func (l *loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if !l.led {
		l.release()
	}
}

// serveByLoop has a loop serve a connection. If it returns false nothing has
// happened to the connection.
func (f *fastPath) serveByLoop(tcp *conn, from *fastListener) bool {
	if len(f.loops) == 0 {
		return false
	}
	l := f.loops[0]
	for _, other := range f.loops[1:] {
		if other.load.Load() < l.load.Load() {
			l = other
		}
	}
	fd, err := duplicate(tcp.TCPConn)
	if err != nil {
		return false
	}
	tcp.TCPConn.Close() // the runtime need not know what happens on it
	l.add(&loopStream{fd: fd, client: tcp.RemoteAddr(), loop: l, event: make(chan struct{}, 1)}, tcp.free, from)
	return true
}

// duplicate returns another descriptor for a connection.
func duplicate(tcp *net.TCPConn) (fd int, err error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	err = raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = dupErr
	}
	return fd, err
}

// add begins to serve a connection.
func (l *loop) add(s *loopStream, free func(), from *fastListener) {
	c := l.fast.add(s, free, from)
	if c == nil {
		return
	}
	s.conn = c
	if !l.enter(s) {
		s.conn = nil
		c.drop()
		return
	}
	event := unix.EpollEvent{Events: loopWatched, Fd: s.number}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		c.drop()
		return
	}
	if !s.rest() {
		go s.serve()
	}
}

// enter gives a connection a number, and the loop a leader. A loop that is closed
// takes none.
func (l *loop) enter(s *loopStream) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.load.Add(1)
	if n := len(l.free); n > 0 {
		s.number, l.free = l.free[n-1], l.free[:n-1]
		l.conns[s.number] = s
	} else {
		s.number = int32(len(l.conns))
		l.conns = append(l.conns, s)
	}
	if !l.led {
		l.led = true
		l.sweepAt = time.Now().Add(l.patience)
		go l.begin()
	}
	return true
}

// leave is for a connection that ends. The leader need not stay for nobody.
func (l *loop) leave(s *loopStream) {
	l.load.Add(-1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[s.number] = nil
	l.free = append(l.free, s.number)
	if l.deserted() {
		l.wakeAt = past
		_ = l.file.SetReadDeadline(past)
	}
}

// deserted reports whether there are no connections.
func (l *loop) deserted() bool { return len(l.free) == len(l.conns) }

var past = time.Unix(1, 0)

// lead is what the leader does, until another goroutine leads or nobody has to.
func (l *loop) lead() {
	for {
		for l.next < l.n {
			s := l.ready[l.next]
			l.ready[l.next] = nil
			l.next++
			if s.take() && !s.turn(l) {
				return
			}
		}
		if l.now.After(l.sweepAt) {
			l.sweep()
		}
		if l.done() {
			return
		}
		l.wait()
	}
}

// done reports whether the loop needs no leader.
func (l *loop) done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.deserted() {
		return false
	}
	l.led = false
	if l.closed {
		l.release()
	}
	return true
}

func (l *loop) release() {
	l.file.Close()
	l.own.Close()
}

// wait waits for events, or until connections may have rested for too long.
func (l *loop) wait() {
	tired := l.now.Sub(l.rested) > loopTurn
	switch busy := l.pollAgain(0); {
	case busy && tired:
		l.yield()
	case !busy && (tired || !l.hot || !l.linger()):
		l.park()
	}
	now := time.Now()
	l.hot = now.Sub(l.now) < loopTurn
	l.now = now
	l.find()
}

// yield lets other goroutines have the processor, those of other connections as well:
// the runtime looks whether something has come on them when no goroutine can go on.
// A leader that always can would have them wait until the runtime looks all the same,
// which is every 10 ms. So it waits as well, for what it has written itself.
func (l *loop) yield() {
	l.asked = false
	_ = l.ownRaw.Read(l.ask)
	l.rested = time.Now()
}

// askForTurn is called when the runtime is ready to tell of what is written, and again
// when it has done so.
func (l *loop) askForTurn(fd uintptr) (come bool) {
	if l.asked {
		return true
	}
	l.asked = true
	one := uint64(1)
	_, _, e := syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
	return e != 0
}

// linger waits a moment in the kernel, where it takes less to be woken than as a
// goroutine. The runtime does not hear of it, or it would give the processor away
// and be busy with that; if it wants the goroutine to stop its signal ends this.
func (l *loop) linger() bool {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events)), loopEvents,
		uintptr(unsafe.Pointer(&lingerTime)), 0, 0)
	return l.got(n, e)
}

// lingerTime is less than goroutines have to wait for a processor anyway. The kernel
// wants 64 bits on any machine.
var lingerTime = struct{ sec, nsec int64 }{nsec: 200_000}

// park waits as goroutines do.
func (l *loop) park() {
	if l.sleepUntil(l.sweepAt) {
		_ = l.raw.Read(l.poll) // fails when the time has come
	}
	l.rested = time.Now()
}

// sleepUntil sets when the leader wakes up, unless it is not to sleep at all.
func (l *loop) sleepUntil(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deserted() {
		return false
	}
	if l.wakeAt != t {
		l.wakeAt = t
		_ = l.file.SetReadDeadline(t)
	}
	return true
}

// pollAgain takes the events there are. It does not wait, so the runtime need
// not know of the system call.
func (l *loop) pollAgain(uintptr) (some bool) {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events)), loopEvents, 0, 0, 0)
	return l.got(n, e)
}

// got takes what a wait has returned, and reports whether there are events.
func (l *loop) got(n uintptr, e syscall.Errno) (some bool) {
	if e != 0 {
		n = 0
	}
	l.found = int(n)
	return n > 0
}

// find finds the connections of the events.
func (l *loop) find() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next, l.n = 0, 0
	for _, e := range l.events[:l.found] {
		s := l.conns[e.Fd]
		if s == nil {
			continue // it has ended meanwhile
		}
		if e.Events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0 {
			s.short.Store(true)
		}
		l.ready[l.n] = s
		l.n++
	}
}

// sweep closes connections that have rested for too long, but not those on which
// something has come that nobody had the time to read. How soon the next sweep
// comes is bounded, so that many connections do not take it once each.
func (l *loop) sweep() {
	l.sweepAt = l.now.Add(l.patience)
	l.mu.Lock()
	all := slices.Clone(l.conns)
	l.mu.Unlock()
	for _, s := range all {
		if s == nil || !s.conn.state.CompareAndSwap(connIdle, connActive) {
			continue
		}
		overdue := !l.now.Before(s.readBy)
		if overdue && s.silent() {
			s.conn.drop()
			continue
		}
		if s.readBy.Before(l.sweepAt) {
			l.sweepAt = s.readBy
		}
		if overdue || !s.rest() {
			go s.serve()
		}
	}
	if soon := l.now.Add(l.patience / 16); l.sweepAt.Before(soon) {
		l.sweepAt = soon
	}
}
