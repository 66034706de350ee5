package simdisk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment/vfs"
)

func create(t testing.TB, d *Disk, name string) vfs.File {
	t.Helper()
	f, err := d.Create(name)
	check(t, err)
	return f
}

func write(t testing.TB, f vfs.File, data string, off int64) {
	t.Helper()
	n, err := f.WriteVec([][]byte{[]byte(data)}, off)
	if err != nil || n != len(data) {
		t.Fatalf("WriteVec = %d, %v; want %d", n, err, len(data))
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read returns what the disk shows, or "absent".
func read(d *Disk, name string) string {
	b, err := d.ReadFile(name)
	if err != nil {
		return "absent"
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	if n, err := f.WriteVec([][]byte{[]byte("one"), nil, []byte("two")}, 0); n != 6 || err != nil {
		t.Fatalf("WriteVec = %d, %v", n, err)
	}
	write(t, f, "X", 8)
	write(t, f, "NE", 1)
	if got := read(d, "a"); got != "oNEtwo\x00\x00X" {
		t.Errorf("read %q", got)
	}
	p := make([]byte, 4)
	for off, want := range map[int64]string{0: "oNEt", 7: "\x00X", 9: "", 100: ""} {
		n, err := f.ReadAt(p, off)
		if string(p[:n]) != want || (err == io.EOF) != (n < len(p)) {
			t.Errorf("ReadAt(%d) = %q, %v; want %q", off, p[:n], err, want)
		}
	}
	if _, err := f.ReadAt(p, -1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("ReadAt(-1): %v", err)
	}
	if size, err := f.Size(); size != 9 || err != nil {
		t.Errorf("Size = %d, %v", size, err)
	}
	if _, err := d.Create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of a taken name: %v", err)
	}
	create(t, d, "b")
	if err := d.Rename("a", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Rename over a file: %v", err)
	}
	if err := d.Rename("none", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Rename of nothing: %v", err)
	}
	check(t, d.Remove("b"))
	if err := d.Remove("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing: %v", err)
	}
	if got := d.Names(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("Names = %q", got)
	}
	r, err := d.Open("a")
	check(t, err)
	if _, err := r.WriteVec([][]byte{{1}}, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("write to a file open for reading: %v", err)
	}
	check(t, r.Close())
	if _, err := r.Size(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Size of a closed file: %v", err)
	}
}

func TestMappingFollowsFile(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "one", 0)
	m, err := f.Map(100)
	check(t, err)
	write(t, f, "two", 3)
	check(t, m.Refresh(3, 6))
	if got := string(m.Bytes()[:6]); got != "onetwo" {
		t.Errorf("mapping shows %q", got)
	}
	if len(m.Bytes()) != 100 {
		t.Errorf("mapping of %d bytes, want 100", len(m.Bytes()))
	}
}

func TestLock(t *testing.T) {
	d := New()
	unlock, err := d.Lock("LOCK")
	check(t, err)
	if _, err := d.Lock("LOCK"); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if locked, err := d.Locked("LOCK"); !locked || err != nil {
		t.Errorf("Locked = %v, %v", locked, err)
	}
	for _, other := range []*Disk{d.Clone(), d.Crash(newRand(1))} {
		if _, err := other.Lock("LOCK"); err != nil {
			t.Errorf("lock after a kill: %v", err)
		}
	}
	check(t, unlock())
	if locked, err := d.Locked("LOCK"); locked || err != nil {
		t.Errorf("Locked = %v, %v", locked, err)
	}
	if locked, err := d.Locked("none"); locked || err != nil {
		t.Errorf("Locked = %v, %v for a missing file", locked, err)
	}
	if d.Ops() != 1 || d.Count(OpLock) != 2 {
		t.Errorf("%d ops, %d locks; only the creation changes the disk", d.Ops(), d.Count(OpLock))
	}
}

func TestHookSeesEveryChange(t *testing.T) {
	d := New()
	var seen []string
	d.OnOp(func(n int, op string) {
		d.Crash(newRand(uint64(n))) // deadlocks if a lock is held
		seen = append(seen, fmt.Sprint(n, " ", op))
	})
	f := create(t, d, "a")
	write(t, f, "x", 0)
	check(t, f.Reserve(0, 100))
	check(t, f.Trim())
	check(t, f.Datasync())
	check(t, f.Sync())
	check(t, d.Rename("a", "b"))
	check(t, d.SyncDir())
	check(t, d.Remove("b"))
	_, err := d.List()
	check(t, err)
	want := []string{"1 Create", "2 WriteVec", "3 Reserve", "4 Trim", "5 Datasync", "6 Sync", "7 Rename", "8 SyncDir", "9 Remove"}
	if !slices.Equal(seen, want) {
		t.Errorf("hook saw %q, want %q", seen, want)
	}
	if d.Ops() != 9 || d.Count(OpList) != 1 {
		t.Errorf("Ops = %d, Count(List) = %d", d.Ops(), d.Count(OpList))
	}
}

func TestClock(t *testing.T) {
	d := New()
	var got []string
	note := func(s string) func() { return func() { got = append(got, s) } }
	d.AfterFunc(3*time.Second, note("3"))
	d.AfterFunc(time.Second, func() {
		note("1")()
		d.AfterFunc(time.Second, note("2"))
		d.AfterFunc(time.Hour, note("late"))
	})
	stop := d.AfterFunc(2*time.Second, note("stopped"))
	d.AfterFunc(3*time.Second, note("3b"))
	if !stop() || stop() {
		t.Error("stop is true once, while the timer waits")
	}
	d.Advance(500 * time.Millisecond)
	if len(got) != 0 {
		t.Errorf("%q fired early", got)
	}
	d.Advance(2500 * time.Millisecond)
	if want := []string{"1", "2", "3", "3b"}; !slices.Equal(got, want) {
		t.Errorf("fired %q, want %q", got, want)
	}
}

// A disk of a given size takes that much and no more: by writing, by setting
// aside, and not twice for what was set aside before. What is removed or given
// back is there for others.
func TestSize(t *testing.T) {
	d := New()
	d.Resize(100)
	full := func(err error) bool { return errors.Is(err, syscall.ENOSPC) }
	free := func(want int64) {
		t.Helper()
		if n, err := d.Free(); err != nil || n != want {
			t.Errorf("%d bytes free, %v; want %d", n, err, want)
		}
	}
	f, err := d.Create("a")
	check(t, err)
	check(t, f.Reserve(0, 60))
	free(40)
	_, err = f.WriteVec([][]byte{make([]byte, 50)}, 0)
	check(t, err)
	free(40)
	if err := f.Reserve(60, 41); !full(err) {
		t.Errorf("Reserve: %v", err)
	}
	if _, err := f.WriteVec([][]byte{make([]byte, 51)}, 50); !full(err) {
		t.Errorf("WriteVec: %v", err)
	}
	c := d.Clone()
	check(t, f.Trim())
	free(50)
	_, err = f.WriteVec([][]byte{make([]byte, 50)}, 50)
	check(t, err)
	free(0)
	if _, err := d.Create("b"); !full(err) {
		t.Errorf("Create: %v", err)
	}
	check(t, d.Remove("a"))
	free(100)
	if n, _ := c.Free(); n != 40 {
		t.Errorf("%d bytes free on the clone", n)
	}
	check(t, c.Trim("a"))
	if n, _ := c.Free(); n != 50 {
		t.Errorf("%d bytes free on the clone after Trim", n)
	}
}
