package vfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockHolder promises that whoever is refused a lock is told who has it, in
// this process or another, also when the lock file was replaced under the
// holder, and nothing once nobody has it.
func TestLockHolder(t *testing.T) {
	if _, err := os.ReadFile("/proc/locks"); err != nil {
		skip(t, err.Error())
	}
	d := tempDir(t)
	path := filepath.Join(d.Path(), "LOCK")
	unlock, err := d.Lock("LOCK")
	check(t, err)
	_, err = d.Lock("LOCK")
	wantError(t, err, ErrLocked, path+": locked by another writer: this process")
	check(t, unlock())
	file, err := os.Stat(path)
	check(t, err)
	dir, err := os.Stat(d.Path())
	check(t, err)
	if who := lockHolder(file, dir); who != "" {
		t.Errorf("nobody has the lock, but %s", who)
	}

	child := startLockChild(t, d)
	want := fmt.Sprintf("another writer: process %d (", child.Process.Pid)
	_, err = d.Lock("LOCK")
	wantError(t, err, ErrLocked, want)
	check(t, os.Remove(path))
	_, err = d.Lock("LOCK")
	wantError(t, err, ErrLocked, want)
}

// TestHolderIn promises the holder of the very file where the table has it, and
// of one with its inode only if there is no doubt.
func TestHolderIn(t *testing.T) {
	const table = `1: FLOCK  ADVISORY  WRITE 11 fe:1a:100 0 EOF
1: -> FLOCK  ADVISORY  WRITE 12 fe:1a:100 0 EOF
2: FLOCK  ADVISORY  READ  13 fe:1a:200 0 EOF
3: POSIX  ADVISORY  WRITE 14 fe:1a:300 0 EOF
4: FLOCK  ADVISORY  WRITE 15 00:1b:400 0 EOF
5: FLOCK  ADVISORY  WRITE 16 00:1c:400 0 EOF
6: FLOCK  ADVISORY  WRITE -1 00:1c:500 0 EOF
7: FLOCK  ADVISORY  WRITE 17
8: FLOCK  ADVISORY  WRITE 18 00:600 0 EOF
9: FLOCK  ADVISORY  WRITE x 00:1c:700 0 EOF
10: FLOCK  ADVISORY  WRITE 19 100:fffff:18446744073709551615 0 EOF

`
	at := func(major, minor uint32, inode uint64) lockedFile { return lockedFile{unix.Mkdev(major, minor), inode} }
	for _, c := range []struct {
		what  string
		files []lockedFile
		pid   int
	}{
		{"no file", nil, 0},
		{"the file", []lockedFile{at(0xfe, 0x1a, 100)}, 11},
		{"the second of two", []lockedFile{at(0xfe, 0x1a, 99), at(0xfe, 0x1a, 100)}, 11},
		{"the file itself before one like the other", []lockedFile{at(9, 9, 100), at(0, 0x1c, 400)}, 16},
		{"another device", []lockedFile{at(0, 0x30, 100)}, 11},
		{"two on other devices", []lockedFile{at(0, 0x30, 400)}, 0},
		{"one of two", []lockedFile{at(0, 0x1b, 400)}, 15},
		{"large numbers", []lockedFile{at(0x100, 0xfffff, ^uint64(0))}, 19},
		{"a shared lock", []lockedFile{at(0xfe, 0x1a, 200)}, 0},
		{"a lock of fcntl", []lockedFile{at(0xfe, 0x1a, 300)}, 0},
		{"another machine", []lockedFile{at(0, 0x1c, 500)}, 0},
		{"what can't be read", []lockedFile{at(0, 0, 600), at(0, 0x1c, 700)}, 0},
	} {
		if pid := holderIn(table, c.files); pid != c.pid {
			t.Errorf("%s: process %d, want %d", c.what, pid, c.pid)
		}
	}
	if got := printable("a b\x1b[2J\xff\n"); strings.ContainsAny(got, "\x1b\n") || !strings.HasPrefix(got, "a b?[2J") {
		t.Errorf("a command is shown as %q", got)
	}
}
