//go:build linux

package db

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play a second process.
func TestMain(m *testing.M) {
	if role := os.Getenv("CROWFLY_TEST_ROLE"); role != "" {
		os.Exit(play(role, os.Args[len(os.Args)-1]))
	}
	os.Exit(m.Run())
}

func play(role, dir string) int {
	var err error
	switch role {
	case "writer":
		err = writeRuns(dir)
	case "fill":
		err = fillDisk(dir)
	case "unreadable":
		_, err = Open(dir, nil)
		if errors.Is(err, os.ErrPermission) {
			err = nil
		} else {
			err = fmt.Errorf("want a permission error, got %v", err)
		}
	case "locked":
		_, err = Open(dir, nil)
		if errors.Is(err, ErrLocked) {
			err = nil
		} else {
			err = fmt.Errorf("want ErrLocked, got %v", err)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func command(role, dir string) *exec.Cmd {
	c := exec.Command(os.Args[0], dir)
	c.Env = append(os.Environ(), "CROWFLY_TEST_ROLE="+role)
	c.Stderr = os.Stderr
	return c
}

const runs, stepsPerRun = 12, 25

// writeRuns opens the store again and again, so that segments are folded, and
// in each step replaces two keys together and deletes a third for good.
func writeRuns(dir string) error {
	for run := range runs {
		db, err := Open(dir, nil)
		if err != nil {
			return err
		}
		for step := range stepsPerRun {
			n := run*stepsPerRun + step
			if err := writeStep(db, n); err != nil {
				return err
			}
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	return nil
}

func writeStep(db *DB, n int) error {
	number := fmt.Append(nil, n)
	if err := db.Put(fmt.Append(nil, "short-lived ", n), number, nil); err != nil {
		return err
	}
	var b Batch
	b.Put([]byte("a"), number, nil)
	b.Put([]byte("b"), number, nil)
	b.Delete(fmt.Append(nil, "short-lived ", n))
	return db.Apply(&b, nil)
}

// A read-only store beside a writer in another process advances, never goes
// back, sees batches whole and never sees a deleted key again, while segments
// are sealed, folded and removed under it. At last it has seen everything.
func TestFollower(t *testing.T) {
	dir := t.TempDir()
	writer := command("writer", dir)
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- writer.Wait() }()
	db := open(t, dir, &Options{ReadOnly: true})
	last, looks := -1, 0
	for running := true; running; looks++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		if err := db.Refresh(); err != nil {
			t.Fatal(err)
		}
		last = checkStep(t, db, last)
	}
	if last != runs*stepsPerRun-1 {
		t.Errorf("last step seen is %d", last)
	}
	if n := db.Stats().Keys; n != 2 {
		t.Errorf("%d keys at the end", n)
	}
	t.Logf("looked %d times", looks)
	if err := db.Put([]byte("k"), nil, nil); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
}

func checkStep(t *testing.T, db *DB, last int) int {
	t.Helper()
	a := readNumber(t, db, "a")
	b := readNumber(t, db, "b")
	if a < last || b < a {
		t.Fatalf("a = %d, then b = %d, after %d was seen", a, b, last)
	}
	for n := range a + 1 {
		mustBeGone(t, db, fmt.Sprint("short-lived ", n))
	}
	return b
}

func readNumber(t *testing.T, db *DB, key string) int {
	t.Helper()
	value, err := db.Get(nil, []byte(key))
	if errors.Is(err, ErrNotFound) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(value))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A process that is killed while it writes loses nothing it had acknowledged,
// and a reader without a writer sees what the next writer will.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	last := -1
	for round := range 8 {
		writer := command("writer", dir)
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(5+7*round) * time.Millisecond)
		writer.Process.Kill()
		writer.Wait()

		ro := open(t, dir, &Options{ReadOnly: true})
		before := readNumber(t, ro, "a")
		ro.Close()
		db := open(t, dir, nil)
		if after := readNumber(t, db, "a"); after != before {
			t.Errorf("read-only saw %d, the writer %d", before, after)
		}
		last = max(last, readNumber(t, db, "b"))
		db.Close()
	}
	t.Logf("reached step %d", last)
}

// A second process that wants to write is refused.
func TestLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, nil)
	if err := command("locked", dir).Run(); err != nil {
		t.Error(err)
	}
}

// A directory that may not be read is an error that says so.
func TestUnreadableDirectory(t *testing.T) {
	dir := t.TempDir() + "/store"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := command("unreadable", dir)
	if os.Getuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		grantAccess(t, c.Path)
	} else if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Output(); err != nil {
		t.Error(string(out), err)
	}
}
