package vfs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tcpPair returns both ends of a connection over the loopback device.
func tcpPair(t *testing.T) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	check(t, err)
	b, err := l.Accept()
	check(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func rawConn(t *testing.T, c *net.TCPConn) syscall.RawConn {
	t.Helper()
	raw, err := c.SyscallConn()
	check(t, err)
	return raw
}

// sendable returns a file of random bytes, and these. It skips where there is
// no sendfile.
func sendable(t *testing.T, size int) (File, []byte) {
	t.Helper()
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	f := create(t, tempDir(t), "data", string(data))
	here, _ := tcpPair(t)
	if _, handled, _ := Send(rawConn(t, here), f, 0, 1); !handled {
		t.Skip("no sendfile on this platform")
	}
	return f, data
}

// TestSendConcurrently sends different ranges of one file to many peers at
// once, larger than one call and larger than what sockets buffer.
func TestSendConcurrently(t *testing.T) {
	f, data := sendable(t, 3*maxTestSend)
	var wg sync.WaitGroup
	for i := range 12 {
		off, n := int64(i*1001), int64(maxTestSend+i*100_003)
		here, there := tcpPair(t)
		raw := rawConn(t, here)
		wg.Go(func() {
			sent, handled, err := Send(raw, f, off, n)
			if sent != n || !handled || err != nil {
				t.Errorf("Send = %d, %v, %v; want %d", sent, handled, err, n)
			}
			here.Close()
		})
		wg.Go(func() {
			got, err := io.ReadAll(there)
			if err != nil || !bytes.Equal(got, data[off:off+n]) {
				t.Errorf("range at %d: %d bytes came over, not those of the file; %v", off, len(got), err)
			}
		})
	}
	wg.Wait()
}

const maxTestSend = 5 << 20

func TestSendHeader(t *testing.T) {
	f, data := sendable(t, 100_000)
	here, there := tcpPair(t)
	raw := rawConn(t, here)
	header := []byte("header\r\n\r\n")
	handled, err := NewSender(raw).Header(header)
	if !handled || err != nil {
		t.Fatalf("Header = %v, %v", handled, err)
	}
	if _, _, err := Send(raw, f, 0, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	here.Close()
	got, err := io.ReadAll(there)
	if err != nil || !bytes.Equal(got, append(header, data...)) {
		t.Errorf("%d bytes came over, not header and file; %v", len(got), err)
	}
}

// TestSendHeaderWaits sends a header larger than what sockets buffer.
func TestSendHeaderWaits(t *testing.T) {
	_, data := sendable(t, 20<<20)
	here, there := tcpPair(t)
	raw := rawConn(t, here)
	done := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(there)
		done <- got
	}()
	if handled, err := NewSender(raw).Header(data); !handled || err != nil {
		t.Errorf("Header = %v, %v", handled, err)
	}
	here.Close()
	if got := <-done; !bytes.Equal(got, data) {
		t.Errorf("%d bytes came over, not the header", len(got))
	}
}

func TestSendToStuckReader(t *testing.T) {
	f, _ := sendable(t, 32<<20)
	here, _ := tcpPair(t)
	raw := rawConn(t, here)
	check(t, here.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	sent, handled, err := Send(raw, f, 0, 32<<20)
	if sent == 0 || sent == 32<<20 || !handled || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send = %d, %v, %v", sent, handled, err)
	}
	if handled, err := NewSender(raw).Header([]byte("x")); !handled || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Header = %v, %v", handled, err)
	}
}

func TestSendToGonePeer(t *testing.T) {
	f, _ := sendable(t, 32<<20)
	here, there := tcpPair(t)
	there.Close()
	_, handled, err := Send(rawConn(t, here), f, 0, 32<<20)
	if !handled || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Send = %v, %v", handled, err)
	}
}

func TestSendTruncatedFile(t *testing.T) {
	f, data := sendable(t, 100_000)
	here, there := tcpPair(t)
	sent, handled, err := Send(rawConn(t, here), f, 90_000, 20_000)
	wantError(t, err, io.ErrUnexpectedEOF, f.OS().Name())
	if sent != 10_000 || !handled {
		t.Errorf("Send = %d, %v", sent, handled)
	}
	here.Close()
	if got, _ := io.ReadAll(there); !bytes.Equal(got, data[90_000:]) {
		t.Errorf("%d bytes came over, not the end of the file", len(got))
	}
}

func TestSendNothing(t *testing.T) {
	f, _ := sendable(t, 10)
	here, _ := tcpPair(t)
	if sent, handled, err := Send(rawConn(t, here), f, 5, 0); sent != 0 || !handled || err != nil {
		t.Errorf("Send = %d, %v, %v", sent, handled, err)
	}
}

// unreal is a file that the operating system does not know.
type unreal struct{ File }

func (unreal) OS() *os.File { return nil }

func TestSendUnrealFile(t *testing.T) {
	here, _ := tcpPair(t)
	if sent, handled, err := Send(rawConn(t, here), unreal{}, 0, 10); sent != 0 || handled || err != nil {
		t.Errorf("Send = %d, %v, %v", sent, handled, err)
	}
}
