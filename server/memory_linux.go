package server

import (
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is the size of the machine's memory, in bytes.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return math.MaxInt64
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// controlGroupLimit is the least limit of the control groups that this process is
// in, of version 1 or 2, in bytes.
func controlGroupLimit() int64 {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return math.MaxInt64
	}
	return groupLimit(os.DirFS("/sys/fs/cgroup"), string(groups))
}

// groupLimit looks for the limits of the groups that /proc/self/cgroup names, see
// cgroups(7), and of those above them. In a container the names may be those outside
// it; then only the topmost group can be seen, and that is the container's.
func groupLimit(files fs.FS, groups string) int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		root, names := "", []string{"memory.max", "memory.high"}
		if fields[1] != "" { // version 1
			if !strings.Contains(","+fields[1]+",", ",memory,") {
				continue
			}
			root, names = "memory", []string{"memory.limit_in_bytes"}
		}
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			for _, name := range names {
				least = min(least, readLimit(files, path.Join(".", root, group, name)))
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}

// readLimit reads a file with a number of bytes. "max", and what is not a number,
// is no limit.
func readLimit(files fs.FS, name string) int64 {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}
