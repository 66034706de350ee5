package measure

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine describes, in a few lines, what a result depends on: the time, the
// revision, Go, the kernel, the processors with what else keeps them busy, and
// the file system of a directory.
func Machine(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "date         %s\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	if r := revision(); r != "" {
		fmt.Fprintf(&b, "revision     %s\n", r)
	}
	fmt.Fprintf(&b, "go           %s %s/%s, GOMAXPROCS %d\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	fmt.Fprintf(&b, "kernel       %s\n", kernel())
	fmt.Fprintf(&b, "processors   %d, %s\n", runtime.NumCPU(), field("/proc/cpuinfo", "model name"))
	fmt.Fprintf(&b, "memory       %s\n", field("/proc/meminfo", "MemTotal"))
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(&b, "load before  %s\n", strings.TrimSpace(string(load)))
	fmt.Fprintf(&b, "file system  %s\n", fileSystem(dir))
	return b.String()
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// revision is the commit of the sources, if the build knows it.
func revision() (r string) {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			r += s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			r += " with changes"
		}
	}
	return r
}

// field is the first one of that name in a file of lines "name: value".
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs (memory, not a disk)", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}
	name, ok := names[int64(s.Type)]
	if !ok {
		name = fmt.Sprintf("of type %#x", s.Type)
	}
	return fmt.Sprintf("%s, %d GiB free", name, int64(s.Bavail)*int64(s.Bsize)>>30)
}
