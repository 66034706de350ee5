package measure

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Check finds each byte that is not what Fill made, and another version or key.
func TestCheck(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 9, 100, 4096} {
		b := make([]byte, size)
		Fill(b, 7, 3)
		if err := Check(b, 7, 3); err != nil {
			t.Fatal(size, err)
		}
		for i := range b {
			b[i] ^= 1
			if Check(b, 7, 3) == nil {
				t.Fatalf("byte %d of %d was not looked at", i, size)
			}
			b[i] ^= 1
		}
		if size >= 8 && (Check(b, 7, 4) == nil || Check(b, 8, 3) == nil) {
			t.Error("another version or key is taken for the same")
		}
	}
}

func TestKey(t *testing.T) {
	for _, n := range []uint64{0, 1, 2, 1 << 40, ^uint64(0)} {
		key := Key(nil, n)
		if got, err := Number(key); err != nil || got != n || len(key) != KeySize {
			t.Errorf("%d is %s, which is %d, %v", n, key, got, err)
		}
	}
	for _, bad := range []string{"", "abc", "000000000000000g", "00000000000000000"} {
		if _, err := Number([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

// A removed file counts apart as long as it is open or mapped, once, and not at
// all before and after. Method: one file goes through all of that.
func TestAllocated(t *testing.T) {
	const size = 1 << 20
	dir := t.TempDir()
	want := func(files, unlinked int64) {
		t.Helper()
		s, err := Allocated(dir)
		if err != nil {
			t.Fatal(err)
		}
		if s.Files>>20 != files || s.Unlinked>>20 != unlinked {
			t.Errorf("%+v, want %d and %d MiB", s, files, unlinked)
		}
	}
	want(0, 0)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, size), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	want(1, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(0, 1)
	f.Close()
	want(0, 1)
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	want(0, 0)
}

// What the process takes more is seen. Method: take it and measure again.
func TestThisProcess(t *testing.T) {
	const size = 16 << 20
	before, err := ThisProcess()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	heap := make([]byte, size)
	for i := range heap {
		heap[i] = 1
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	barred, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(barred)
	after, err := ThisProcess()
	if err != nil {
		t.Fatal(err)
	}
	if after.Descriptors != before.Descriptors+1 || after.Maps <= before.Maps || after.Barred == 0 ||
		after.Anon < before.Anon+size/2 || after.Heap < before.Heap+size/2 {
		t.Errorf("%+v, then %+v", before, after)
	}
	runtime.KeepAlive(heap)
}

func TestMachine(t *testing.T) {
	got := Machine(t.TempDir())
	t.Log("\n" + got)
	if strings.Contains(got, "unknown") || !strings.Contains(got, runtime.Version()) {
		t.Error(got)
	}
}
