//go:build !linux

package vfs

import "syscall"

// Send sends a part of a file to a socket without copying it through user
// space. This platform can't: handled is false and nothing was sent.
func Send(conn syscall.RawConn, src File, off, n int64) (sent int64, handled bool, err error) {
	return 0, false, nil
}

// Sender would do that again and again.
type Sender struct {
	Resident bool
	Calls    uint64
}

// NewSender returns one for a socket.
func NewSender(conn syscall.RawConn) *Sender { return &Sender{} }

// Send sends nothing: handled is false.
func (s *Sender) Send(src File, off, n int64) (sent int64, handled bool, err error) {
	return 0, false, nil
}

// Header sends nothing: handled is false.
func (s *Sender) Header(header []byte) (handled bool, err error) { return false, nil }
