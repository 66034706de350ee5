package vfs

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"
)

// lockHolder says which process has a flock on the first of these files that
// has one, or "" if the system does not tell: where there is no /proc, or where
// it shows the processes of this container alone. It is for people, and may be
// out of date.
func lockHolder(locked ...fs.FileInfo) string {
	table, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	var files []lockedFile
	for _, info := range locked {
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			files = append(files, lockedFile{device: uint64(s.Dev), inode: s.Ino})
		}
	}
	pid := holderIn(string(table), files)
	switch {
	case pid == 0:
		return ""
	case pid == os.Getpid():
		return "this process"
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, printable(string(name)))
}

// lockedFile is a file as /proc/locks names it.
type lockedFile struct{ device, inode uint64 }

// holderIn returns the process that has an exclusive flock on the first of
// these files that has one, or 0. On some file systems a file has another
// device there than for stat. Then its inode has to do, if one lock alone is
// on such a one.
func holderIn(table string, files []lockedFile) int {
	exact, similar := make(map[lockedFile]int), make(map[uint64][]int)
	for line := range strings.Lines(table) {
		if file, pid, ok := parseLock(line); ok {
			exact[file] = pid
			similar[file.inode] = append(similar[file.inode], pid)
		}
	}
	for _, file := range files {
		if pid := exact[file]; pid > 0 {
			return pid
		}
	}
	for _, file := range files {
		if pids := similar[file.inode]; len(pids) == 1 {
			return pids[0]
		}
	}
	return 0
}

// parseLock reads a line of /proc/locks. It knows exclusive flocks only, and
// nobody who waits for one:
//
//	1: FLOCK  ADVISORY  WRITE 4711 fe:00:10198274 0 EOF
//	1: -> FLOCK  ADVISORY  WRITE 4712 fe:00:10198274 0 EOF
func parseLock(line string) (file lockedFile, pid int, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
		return file, 0, false
	}
	place := strings.Split(f[5], ":")
	if len(place) != 3 {
		return file, 0, false
	}
	pid, err := strconv.Atoi(f[4])
	major, merr := strconv.ParseUint(place[0], 16, 32)
	minor, nerr := strconv.ParseUint(place[1], 16, 32)
	inode, ierr := strconv.ParseUint(place[2], 10, 64)
	if err != nil || merr != nil || nerr != nil || ierr != nil {
		return file, 0, false
	}
	return lockedFile{unix.Mkdev(uint32(major), uint32(minor)), inode}, pid, pid > 0
}

// printable is the name of a command fit for a terminal: a process may have
// given itself any.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSuffix(name, "\n"))
}
