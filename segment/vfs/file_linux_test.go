package vfs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// blocks returns the space a file takes in bytes.
func blocks(t *testing.T, f File) int64 {
	t.Helper()
	info, err := f.OS().Stat()
	check(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestReserveTakesAndTrimGivesBack(t *testing.T) {
	const reserved = 1 << 20
	f := create(t, tempDir(t), "a", "start")
	check(t, f.Reserve(0, reserved))
	if blocks(t, f) < reserved {
		t.Skip("this file system can't reserve")
	}
	check(t, f.Trim())
	if got := blocks(t, f); got > 64<<10 {
		t.Errorf("the file still takes %d bytes", got)
	}
}

// smallDisk mounts a file system of a few MiB, which needs root.
func smallDisk(t *testing.T) *Dir {
	t.Helper()
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("can't mount a small disk: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	d, err := OpenDir(path, false)
	check(t, err)
	return d
}

func TestReserveBeyondFullDisk(t *testing.T) {
	d := smallDisk(t)
	f := create(t, d, "a", "start")
	wantError(t, f.Reserve(0, 64<<20), syscall.ENOSPC, filepath.Join(d.Path(), "a"))
	if got := blocks(t, f); got > 64<<10 {
		t.Errorf("a failed Reserve keeps %d bytes", got)
	}
}

// TestFullDisk: what was reserved can be written on a full disk, and a write
// that only partly fits says so by its count.
func TestFullDisk(t *testing.T) {
	d := smallDisk(t)
	a, b := create(t, d, "a", ""), create(t, d, "b", "")
	check(t, a.Reserve(0, 1<<20))
	big := make([]byte, 16<<20)
	n, err := b.WriteVec([][]byte{big}, 0)
	if err != nil || n == 0 || n >= len(big) {
		t.Fatalf("WriteVec of 16 MiB to a disk of 4 = %d, %v", n, err)
	}
	_, err = b.WriteVec([][]byte{big}, int64(n))
	wantError(t, err, syscall.ENOSPC, filepath.Join(d.Path(), "b"))
	writeAll(t, a, big[:1<<20], 0)
	check(t, a.Datasync())
}

// TestNoInheritance: a child process gets no descriptor of ours.
func TestNoInheritance(t *testing.T) {
	f := create(t, tempDir(t), "a", "")
	flags, err := unix.FcntlInt(f.OS().Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// TestSendFallback: a descriptor that sendfile or send does not take leaves
// the work to the caller.
func TestSendFallback(t *testing.T) {
	d := tempDir(t)
	src := create(t, d, "src", "hello")
	dst, err := os.OpenFile(filepath.Join(d.Path(), "dst"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	check(t, err)
	defer dst.Close()
	conn, err := dst.SyscallConn()
	check(t, err)
	if sent, handled, err := Send(conn, src, 0, 5); sent != 0 || handled || err != nil {
		t.Errorf("Send = %d, %v, %v", sent, handled, err)
	}
	if handled, err := NewSender(conn).Header([]byte("head")); handled || err != nil {
		t.Errorf("Header = %v, %v", handled, err)
	}
}
