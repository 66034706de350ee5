package vfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestResident: memory is resident when it has been read, each page by itself,
// and not before. Method: a file of which the kernel was told to forget all.
func TestResident(t *testing.T) {
	const pages = 300
	f := forgotten(t, pages)
	mem, err := unix.Mmap(int(f.Fd()), 0, pages*int(pageSize), unix.PROT_READ, unix.MAP_SHARED)
	check(t, err)
	defer unix.Munmap(mem)
	check(t, unix.Madvise(mem, unix.MADV_RANDOM)) // no reading ahead
	page := func(i int) []byte { return mem[i*int(pageSize):][:pageSize] }
	if Resident(page(7)) {
		t.Skip("this file system keeps all files in memory")
	}
	sum := page(7)[5] + page(8)[5] + page(pages - 1)[0]
	for i, want := range map[int]bool{6: false, 7: true, 8: true, 9: false, pages - 1: true} {
		if got := Resident(page(i)); got != want {
			t.Errorf("page %d: %v (sum %d)", i, got, sum)
		}
	}
	both := append(page(7)[:0:0], mem[7*pageSize+9:9*pageSize-9]...)
	for name, c := range map[string]struct {
		p    []byte
		want bool
	}{
		"two pages":        {mem[7*pageSize+9 : 9*pageSize-9], true},
		"a byte more":      {mem[7*pageSize+9 : 9*pageSize+1], false},
		"a byte before":    {mem[7*pageSize-1 : 9*pageSize], false},
		"nothing":          {nil, true},
		"memory of the Go": {both, true},
		"all":              {mem, false},
	} {
		if got := Resident(c.p); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// forgotten is a file of which nothing is in memory, if the file system can do
// that.
func forgotten(t *testing.T, pages int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(make([]byte, pages*int(pageSize)))
	check(t, err)
	check(t, f.Sync())
	check(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	return f
}
