package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/segment/vfs"
)

// TestUsedMemory: the kernel is asked about memory that was not looked at lately,
// or not as much of it. Method: a mapping of which the kernel is told to forget all,
// which a second question would find out.
func TestUsedMemory(t *testing.T) {
	const page, size = 4096, 64 * 4096
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, noise(size, 1), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)

	var used usedMemory
	now := time.Now()
	want := func(what string, want bool, p []byte, now time.Time) {
		t.Helper()
		if got := used.resident(p, now); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	want("just written", true, mem[:6000], now)
	want("across blocks", true, mem[20*page:60*page], now)
	forget(t, f, mem)
	if vfs.Resident(mem) {
		t.Skip("this file system keeps all files in memory")
	}
	want("just used", true, mem[:6000], now)
	want("a part of it", true, mem[:10], now)
	want("more of it", false, mem[:12000], now)
	want("something else", false, mem[8192:9000], now)
	want("used long ago", false, mem[:6000], now.Add(time.Second))
	for from := 20; from < 60; from++ {
		for to := from + 1; to <= 60; to++ {
			want("a part across blocks", true, mem[from*page:to*page], now)
		}
	}
	want("a page before", false, mem[19*page:60*page], now)
	want("a page behind", false, mem[20*page:60*page+1], now)
}

// forget has the kernel forget what is in memory of a file, if it can.
func forget(t *testing.T, f *os.File, mem []byte) {
	t.Helper()
	for _, err := range []error{
		f.Sync(), unix.Madvise(mem, unix.MADV_DONTNEED), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
