package vfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// interruptedDir is set for a child that works in the directory it names, see
// beInterrupted.
const interruptedDir = "CROWFLY_TEST_INTERRUPTED_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(interruptedDir); dir != "" {
		if err := beInterrupted(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// skip says why a test can't run here. Where nothing may be skipped it fails.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// TestInterrupted promises that no caller notices a system call that a signal
// interrupts. Method: a child makes each call several times through this package,
// under strace, which lets the first of them, the fourth, and so on, end with
// EINTR before it does anything.
func TestInterrupted(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip(t, "no strace")
	}
	for _, call := range []string{
		"pwritev", "fdatasync", "fsync", "fallocate", "ftruncate", "renameat2", "flock", "sendfile", "sendto",
	} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			const least = 2
			if n := interrupt(t, strace, call); n < least {
				t.Errorf("%d calls were interrupted, should be %d at least", n, least)
			}
		})
	}
}

// interrupt runs the child and returns how many of its calls were interrupted.
func interrupt(t *testing.T, strace, call string) int {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if strconv.IntSize == 32 && (call == "ftruncate" || call == "sendfile") {
		call += "64" // the kernel's name of the call with offsets of 64 bits
	}
	cmd := exec.CommandContext(ctx, strace, "-f", "-qq", "-o", trace,
		"-e", "trace="+call, "-e", "inject="+call+":error=EINTR:when=1+3", os.Args[0])
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), interruptedDir+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "ptrace") {
		skip(t, "ptrace is not allowed: "+string(out))
	}
	if err != nil {
		t.Fatalf("child: %v: %s", err, out)
	}
	text, err := os.ReadFile(trace)
	check(t, err)
	return strings.Count(string(text), "EINTR (Interrupted system call) (INJECTED)")
}

// beInterrupted makes every call that may be interrupted, and sees to it that
// each has done its work.
func beInterrupted(dir string) error {
	runtime.LockOSThread() // strace counts the calls of each thread by themselves
	d, err := OpenDir(dir, false)
	if err != nil {
		return err
	}
	const rounds = 4
	for i := range rounds {
		name := fmt.Sprint(i)
		if err := errors.Join(writeInterrupted(d, name), lockInterrupted(d), sendInterrupted(d, name)); err != nil {
			return err
		}
	}
	return nil
}

// writeInterrupted makes a file. Its name shows that it is whole.
func writeInterrupted(d *Dir, name string) error {
	f, err := d.Create("tmp")
	if err != nil {
		return err
	}
	errs := []error{f.Reserve(0, 1<<16)}
	n, err := f.WriteVec([][]byte{[]byte("hel"), []byte("lo")}, 0)
	if err == nil && n != 5 {
		err = io.ErrShortWrite
	}
	errs = append(errs, err, f.Datasync(), f.Sync(), f.Trim(), f.Close(), d.Rename("tmp", name), d.SyncDir())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(d.Path(), name))
	if err == nil && string(b) != "hello" {
		err = fmt.Errorf("file %s has %q", name, b)
	}
	return err
}

// lockInterrupted locks and unlocks the directory.
func lockInterrupted(d *Dir) error {
	unlock, err := d.Lock("LOCK")
	if err != nil {
		return err
	}
	held, err := d.Locked("LOCK")
	err = errors.Join(err, unlock())
	free, freeErr := d.Locked("LOCK")
	if err = errors.Join(err, freeErr); err == nil && (!held || free) {
		err = fmt.Errorf("locked: %v, after unlocking: %v", held, free)
	}
	return err
}

// sendInterrupted sends a header and the file to a socket and reads them there.
func sendInterrupted(d *Dir, name string) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	from, to := os.NewFile(uintptr(pair[0]), "from"), os.NewFile(uintptr(pair[1]), "to")
	defer from.Close()
	defer to.Close()
	conn, err := from.SyscallConn()
	if err != nil {
		return err
	}
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	sender := NewSender(conn)
	head, err := sender.Header([]byte("header "))
	_, body, sendErr := sender.Send(f, 0, 5)
	if err := errors.Join(err, sendErr); err != nil || !head || !body {
		return fmt.Errorf("sent header: %v, body: %v, %w", head, body, err)
	}
	got := make([]byte, len("header hello"))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != "header hello" {
		return fmt.Errorf("%q arrived, %w", got, err)
	}
	return nil
}
