package vfs

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func wantLocked(t *testing.T, d *Dir, want bool) {
	t.Helper()
	if got, err := d.Locked("LOCK"); got != want || err != nil {
		t.Errorf("Locked = %v, %v; want %v", got, err, want)
	}
}

func TestLock(t *testing.T) {
	d := tempDir(t)
	path := filepath.Join(d.Path(), "LOCK")
	wantLocked(t, d, false)
	if names, _ := d.List(); len(names) != 0 {
		t.Errorf("Locked created %q", names)
	}
	unlock, err := d.Lock("LOCK")
	check(t, err)
	wantLocked(t, d, true)

	other, err := OpenDir(d.Path(), false)
	check(t, err)
	start := time.Now()
	_, err = other.Lock("LOCK")
	wantError(t, err, ErrLocked, path)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("refused after %v", took)
	}
	check(t, unlock())
	wantLocked(t, d, false)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the lock file is gone: %v", err)
	}
	unlock, err = other.Lock("LOCK")
	check(t, err)
	check(t, unlock())
	if unlock() == nil {
		t.Error("a second unlock says nothing")
	}
}

// TestLockPatience: a probe that holds the lock for a moment does not turn a
// writer away.
func TestLockPatience(t *testing.T) {
	d := tempDir(t)
	release, err := d.Lock("LOCK")
	check(t, err)
	time.AfterFunc(lockPatience/5, func() { release() })
	unlock, err := d.Lock("LOCK")
	check(t, err)
	check(t, unlock())
}

// TestLockProbePatience: nor do several, one after the other, for as long as
// that takes.
func TestLockProbePatience(t *testing.T) {
	d := tempDir(t)
	f := create(t, d, "LOCK", "").OS()
	check(t, setLock(f, false))
	released := make(chan error)
	time.AfterFunc(3*lockPatience, func() { released <- clearLock(f) })
	unlock, err := d.Lock("LOCK")
	check(t, err)
	check(t, <-released)
	check(t, unlock())
}

// TestLockOfRemovedFile: a lock on a file without a name is no lock.
func TestLockOfRemovedFile(t *testing.T) {
	d := tempDir(t)
	f := create(t, d, "LOCK", "")
	path := filepath.Join(d.Path(), "LOCK")
	check(t, d.sameFile(f.OS(), "LOCK"))
	if err := os.Remove(path); err != nil {
		t.Skipf("open files can't be removed here: %v", err)
	}
	if err := d.sameFile(f.OS(), "LOCK"); err != ErrLocked {
		t.Errorf("removed: %v", err)
	}
	create(t, d, "LOCK", "")
	if err := d.sameFile(f.OS(), "LOCK"); err != ErrLocked {
		t.Errorf("replaced: %v", err)
	}
}

// TestLockOfReplacedFile: whoever removes the lock file, or puts another in its
// place, frees nothing.
func TestLockOfReplacedFile(t *testing.T) {
	d := tempDir(t)
	unlock, err := d.Lock("LOCK")
	check(t, err)
	path := filepath.Join(d.Path(), "LOCK")
	if err := os.Remove(path); err != nil {
		t.Skipf("open files can't be removed here: %v", err)
	}
	wantLocked(t, d, true)
	create(t, d, "LOCK", "")
	wantLocked(t, d, true)
	_, err = d.Lock("LOCK")
	wantError(t, err, ErrLocked, path)
	check(t, unlock())
	wantLocked(t, d, false)
	unlock, err = d.Lock("LOCK")
	check(t, err)
	check(t, unlock())
}

const lockChildDir = "CROWFLY_TEST_LOCK_DIR"

// TestLockChild is the other process of TestLockAcrossProcesses.
func TestLockChild(t *testing.T) {
	path := os.Getenv(lockChildDir)
	if path == "" {
		t.Skip("runs as a child process only")
	}
	d, err := OpenDir(path, false)
	check(t, err)
	unlock, err := d.Lock("LOCK")
	check(t, err)
	os.Stdout.WriteString("locked\n")
	os.Stdin.Read(make([]byte, 1)) // until killed
	check(t, unlock())
}

// startLockChild has another process take the lock, until the test ends.
func startLockChild(t *testing.T, d *Dir) *exec.Cmd {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestLockChild$")
	child.Env = append(os.Environ(), lockChildDir+"="+d.Path())
	stdin, err := child.StdinPipe()
	check(t, err)
	stdout, err := child.StdoutPipe()
	check(t, err)
	check(t, child.Start())
	t.Cleanup(func() {
		stdin.Close()
		child.Process.Kill()
		child.Wait() // says that it was killed
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	return child
}

func TestLockAcrossProcesses(t *testing.T) {
	d := tempDir(t)
	child := startLockChild(t, d)
	wantLocked(t, d, true)
	_, err := d.Lock("LOCK")
	wantError(t, err, ErrLocked, filepath.Join(d.Path(), "LOCK"))

	check(t, child.Process.Kill())
	child.Wait() // says that it was killed
	unlock, err := d.Lock("LOCK")
	check(t, err)
	check(t, unlock())
}
