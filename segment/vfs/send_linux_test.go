package vfs

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSendCorks: while a large part of a file is sent the socket is corked, and not
// afterwards, or the end would wait. Method: a peer that does not read at first.
func TestSendCorks(t *testing.T) {
	const size = 16 << 20
	f, _ := sendable(t, size)
	here, there := tcpPair(t)
	raw := rawConn(t, here)
	corked := func() bool {
		var on int
		var err error
		check(t, raw.Control(func(fd uintptr) { on, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK) }))
		check(t, err)
		return on != 0
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := Send(raw, f, 0, size)
		done <- err
	}()
	for deadline := time.Now().Add(5 * time.Second); !corked(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the socket is not corked")
		}
	}
	check(t, there.SetReadDeadline(time.Now().Add(30*time.Second)))
	n, err := io.CopyN(io.Discard, there, size)
	if n != size {
		t.Fatal(n, err)
	}
	check(t, <-done)
	if corked() {
		t.Error("the socket is still corked")
	}
}
