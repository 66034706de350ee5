//go:build !linux

package vfs

import "syscall"

// Send sends a part of a file to a socket without copying it through user
// space. This platform can't: handled is false and nothing was sent.
func Send(conn syscall.RawConn, src File, off, n int64) (sent int64, handled bool, err error) {
	return 0, false, nil
}

// SendHeader sends bytes that more will follow. This platform can't say so:
// handled is false and nothing was sent.
func SendHeader(conn syscall.RawConn, header []byte) (handled bool, err error) {
	return false, nil
}
