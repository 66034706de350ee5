package measure

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Space is what a directory takes on disk, in bytes allocated.
type Space struct {
	Files    int64 // with a name
	Unlinked int64 // without one any more, but open or mapped in this process
}

// Sum is both.
func (s Space) Sum() int64 { return s.Files + s.Unlinked }

// Allocated adds up the blocks of all files in a directory and below, and those
// of files that were removed from it and that this process still has open or
// mapped.
func Allocated(dir string) (s Space, err error) {
	if dir, err = realPath(dir); err != nil {
		return s, err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				s.Files += blocks(info)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		return err
	})
	if err != nil {
		return s, err
	}
	s.Unlinked, err = unlinked(dir)
	return s, err
}

func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

func blocks(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }

const deleted = " (deleted)" // what the kernel appends to such a path

// unlinked is what files take that were removed from dir.
func unlinked(dir string) (sum int64, err error) {
	found := make(map[uint64]int64) // bytes by inode
	if err := openUnlinked(dir, found); err != nil {
		return 0, err
	}
	if err := mappedUnlinked(dir, found); err != nil {
		return 0, err
	}
	for _, n := range found {
		sum += n
	}
	return sum, nil
}

func openUnlinked(dir string, found map[uint64]int64) error {
	const fds = "/proc/self/fd"
	list, err := os.ReadDir(fds)
	if err != nil {
		return err
	}
	for _, e := range list {
		name := filepath.Join(fds, e.Name())
		if path, err := os.Readlink(name); err != nil || !wasIn(dir, path) {
			continue // closed meanwhile, or not one of them
		}
		if info, err := os.Stat(name); err == nil {
			found[info.Sys().(*syscall.Stat_t).Ino] = blocks(info)
		}
	}
	return nil
}

// mappedUnlinked finds mapped files. What one takes on disk the kernel tells
// root only; for others it is what is mapped of it.
func mappedUnlinked(dir string, found map[uint64]int64) error {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	mapped := make(map[uint64]int64)
	for lines.Scan() {
		addresses, inode, path := mapping(lines.Text())
		if _, known := found[inode]; known || !wasIn(dir, path) {
			continue
		}
		if info, err := os.Stat("/proc/self/map_files/" + addresses); err == nil {
			found[inode] = blocks(info)
			continue
		}
		mapped[inode] += length(addresses)
	}
	for inode, n := range mapped {
		if _, known := found[inode]; !known {
			found[inode] = n
		}
	}
	return lines.Err()
}

// mapping takes a line of /proc/self/maps apart: addresses, permissions,
// offset, device, inode, path.
func mapping(line string) (addresses string, inode uint64, path string) {
	f := strings.Fields(line)
	if len(f) < 6 {
		return "", 0, ""
	}
	inode, _ = strconv.ParseUint(f[4], 10, 64)
	return f[0], inode, line[strings.Index(line, f[5]):]
}

func length(addresses string) int64 {
	from, to, _ := strings.Cut(addresses, "-")
	a, _ := strconv.ParseUint(from, 16, 64)
	b, _ := strconv.ParseUint(to, 16, 64)
	return int64(b - a)
}

func wasIn(dir, path string) bool {
	return strings.HasPrefix(path, dir+"/") && strings.HasSuffix(path, deleted)
}
