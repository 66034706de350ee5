package vfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unnamed makes a large file without a name and returns it with how often it was
// changed since, as the system tells.
func unnamed(t *testing.T) (f File, data []byte, changes func() int) {
	d := tempDir(t)
	data = make([]byte, 12<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	f, err := d.Create("a")
	check(t, err)
	writeAll(t, f, data, 0)
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(t, err)
	t.Cleanup(func() { unix.Close(watch) })
	_, err = unix.InotifyAddWatch(watch, filepath.Join(d.Path(), "a"), unix.IN_MODIFY)
	check(t, err)
	check(t, d.Remove("a"))
	return f, data, func() int { return events(watch) }
}

// events are the changes since the last call. Several that nobody has read are
// one.
func events(watch int) (changes int) {
	buf := make([]byte, 64*unix.SizeofInotifyEvent)
	n, _ := unix.Read(watch, buf)
	for ; n > 0; n -= unix.SizeofInotifyEvent {
		if binary.NativeEndian.Uint32(buf[4:])&unix.IN_MODIFY != 0 {
			changes++
		}
		buf = buf[unix.SizeofInotifyEvent:]
	}
	return changes
}

// A large file without a name gives its space back little by little once nobody
// uses it. Method: inotify counts the changes.
func TestBury(t *testing.T) {
	f, _, changes := unnamed(t)
	runtime.KeepAlive(f)
	seen := 0
	collectUntil(t, "the file is made shorter in steps", func() bool {
		seen += changes()
		return seen > 1
	})
}

// A file that another descriptor or a mapping still shows stays whole. Method:
// all of it is compared after the time that burying waits for it to be alone.
func TestBuryBesideOthers(t *testing.T) {
	before := aloneTries * alonePause
	t.Run("descriptor", func(t *testing.T) {
		f, data, changes := unnamed(t)
		other, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.(*file).handle.Load().Fd()))
		check(t, err)
		defer other.Close()
		bury(f.(*file).handle)
		time.Sleep(before + before/4)
		got := make([]byte, len(data))
		if _, err := other.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) || changes() > 0 {
			t.Errorf("%d changes, %v", changes(), err)
		}
	})
	t.Run("mapping", func(t *testing.T) {
		f, data, changes := unnamed(t)
		m, err := unix.Mmap(int(f.(*file).handle.Load().Fd()), 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
		check(t, err)
		defer unix.Munmap(m)
		bury(f.(*file).handle)
		time.Sleep(before + before/4)
		if n := changes(); n > 0 || !bytes.Equal(m, data) {
			t.Errorf("%d changes", n)
		}
	})
}

// What sendfile has queued is what the receiver gets, also if the file goes before
// that is read. Method: the receiver reads nothing until burying must have begun.
func TestBuryWhileQueued(t *testing.T) {
	f, data, changes := unnamed(t)
	here, there := tcpPair(t)
	check(t, here.SetWriteDeadline(time.Now().Add(time.Second)))
	off := int64(len(data)) - 3<<20 - 100
	sent, _, err := Send(rawConn(t, here), f, off, 3<<20)
	if sent == 0 {
		t.Fatal(err)
	}
	bury(f.(*file).handle)
	f = nil
	time.Sleep(100 * time.Millisecond)
	here.Close()
	got, err := io.ReadAll(there)
	if err != nil || int64(len(got)) != sent || !bytes.Equal(got, data[off:off+sent]) || changes() > 0 {
		t.Errorf("%d bytes of %d, %v", len(got), sent, err)
	}
}

// Files that others hold do not keep the rest from giving their space back.
// Method: as many are held as take longer than this test waits.
func TestBuryBehindOthers(t *testing.T) {
	var held []*os.File
	defer func() {
		for _, f := range held {
			f.Close()
		}
	}()
	for range 10 {
		f, _, _ := unnamed(t)
		other, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.(*file).handle.Load().Fd()))
		check(t, err)
		held = append(held, other)
		bury(f.(*file).handle)
	}
	f, _, changes := unnamed(t)
	bury(f.(*file).handle)
	for deadline := time.Now().Add(aloneTries * alonePause * 5); changes() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing has come back")
		}
	}
}
