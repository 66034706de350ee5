package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

// A service manager such as systemd may open the socket of a service, and wants to
// hear when it serves and when it stops: see sd_listen_fds(3) and sd_notify(3).

// firstInherited is the first descriptor that is passed on to a process.
const firstInherited = 3

// inherited returns the listener that a service manager has opened for this
// process, or nil if it has not.
func inherited() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil // or it was for the parent
	}
	if n := os.Getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("LISTEN_FDS: %q sockets were passed on, want one", n)
	}
	f := os.NewFile(firstInherited, "LISTEN_FDS")
	l, err := net.FileListener(f)
	return l, errors.Join(err, f.Close())
}

// announced is a listener that tells the service manager when the server begins
// to accept, so after it has looked at the listener.
type announced struct {
	net.Listener
	ready func()
}

func announce(e *env, l net.Listener) announced {
	return announced{l, sync.OnceFunc(func() { notify(e, "READY=1") })}
}

// Accept implements [net.Listener].
func (a announced) Accept() (net.Conn, error) {
	a.ready()
	return a.Listener.Accept()
}

// notify tells the service manager, if there is one, how this process does.
func notify(e *env, state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.Dial("unixgram", socket)
	if err == nil {
		_, err = io.WriteString(c, state)
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		e.talk("crowfly: NOTIFY_SOCKET: %v", err)
	}
}
