package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func tempDir(t testing.TB) *Dir {
	t.Helper()
	d, err := OpenDir(t.TempDir(), false)
	check(t, err)
	return d
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a file with these contents.
func create(t testing.TB, d *Dir, name, data string) File {
	t.Helper()
	f, err := d.Create(name)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	writeAll(t, f, []byte(data), 0)
	return f
}

func writeAll(t testing.TB, f File, p []byte, off int64) {
	t.Helper()
	n, err := f.WriteVec([][]byte{p}, off)
	if err != nil || n != len(p) {
		t.Fatalf("WriteVec = %d, %v; want %d", n, err, len(p))
	}
}

// wantError checks what every error promises: a sentinel and the full path.
func wantError(t testing.TB, err, is error, path string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("error is %v, want %v", err, is)
	} else if !strings.Contains(err.Error(), path) {
		t.Errorf("error %q does not name %s", err, path)
	}
}

func TestOpenDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	_, err := OpenDir(path, false)
	wantError(t, err, fs.ErrNotExist, path)

	for range 2 { // new, then present
		d, err := OpenDir(path, true)
		check(t, err)
		if d.Path() != path {
			t.Errorf("Path = %s", d.Path())
		}
	}
	_, err = OpenDir(filepath.Join(path, "a", "b"), true)
	wantError(t, err, fs.ErrNotExist, filepath.Join(path, "a"))

	file := filepath.Join(path, "file")
	check(t, os.WriteFile(file, nil, 0o644))
	for _, create := range []bool{false, true} {
		if _, err := OpenDir(file, create); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("OpenDir of a file: %v", err)
		}
	}
}

func TestOpenDirUnreadable(t *testing.T) {
	path := t.TempDir()
	check(t, os.Chmod(path, 0o300))
	defer os.Chmod(path, 0o700)
	if _, err := os.ReadDir(path); err == nil {
		t.Skip("this user may read everything")
	}
	_, err := OpenDir(path, true)
	wantError(t, err, fs.ErrPermission, path)
}

func TestOpenDirStaysPut(t *testing.T) {
	t.Chdir(t.TempDir())
	d, err := OpenDir("store", true)
	check(t, err)
	t.Chdir(t.TempDir())
	create(t, d, "a", "x")
}

func TestCreateOpenRemove(t *testing.T) {
	d := tempDir(t)
	f := create(t, d, "a", "hello")
	if f.Name() != "a" {
		t.Errorf("Name = %q", f.Name())
	}
	path := filepath.Join(d.Path(), "a")
	_, err := d.Create("a")
	wantError(t, err, fs.ErrExist, path)

	r, err := d.Open("a")
	check(t, err)
	defer r.Close()
	if size, err := r.Size(); size != 5 || err != nil {
		t.Errorf("Size = %d, %v", size, err)
	}
	if _, err := r.WriteVec([][]byte{{1}}, 0); err == nil {
		t.Error("a file that was opened for reading can be written")
	}
	check(t, d.Remove("a"))
	check(t, d.SyncDir())
	p := make([]byte, 5)
	if _, err := r.ReadAt(p, 0); string(p) != "hello" || err != nil {
		t.Errorf("a removed file reads %q, %v", p, err)
	}
	wantError(t, d.Remove("a"), fs.ErrNotExist, path)
	_, err = d.Open("a")
	wantError(t, err, fs.ErrNotExist, path)
}

func TestRename(t *testing.T) {
	d := tempDir(t)
	create(t, d, "a", "A")
	create(t, d, "b", "B")
	wantError(t, d.Rename("a", "b"), fs.ErrExist, filepath.Join(d.Path(), "b"))
	wantError(t, d.Rename("none", "c"), fs.ErrNotExist, filepath.Join(d.Path(), "none"))
	check(t, d.Rename("a", "c"))
	check(t, d.SyncDir())
	if names, _ := d.List(); !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("files are %q", names)
	}
}

func TestLinkThenUnlink(t *testing.T) {
	d := tempDir(t)
	create(t, d, "a", "A")
	create(t, d, "b", "B")
	wantError(t, d.linkThenUnlink("a", "b"), fs.ErrExist, "b")
	check(t, d.linkThenUnlink("a", "c"))
	if names, _ := d.List(); !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("files are %q", names)
	}
}

func TestListOnlyFiles(t *testing.T) {
	d := tempDir(t)
	for _, name := range []string{"b", "a", "LOCK"} {
		create(t, d, name, "")
	}
	check(t, os.Mkdir(filepath.Join(d.Path(), "trash"), 0o755))
	check(t, os.Symlink("a", filepath.Join(d.Path(), "link")))
	names, err := d.List()
	if !slices.Equal(names, []string{"LOCK", "a", "b"}) || err != nil {
		t.Errorf("List = %q, %v", names, err)
	}
}

// TestTrash promises that what goes to the trash keeps its contents, replaces
// nothing that is there already and is no longer listed.
func TestTrash(t *testing.T) {
	d := tempDir(t)
	for i, want := range []string{"trash/a", "trash/a.1", "trash/a.2"} {
		content := fmt.Sprint("content ", i)
		create(t, d, "a", content)
		path, err := d.Trash("a")
		if path != filepath.FromSlash(want) || err != nil {
			t.Fatalf("Trash = %q, %v, want %q", path, err, want)
		}
		if got, err := os.ReadFile(filepath.Join(d.Path(), path)); string(got) != content {
			t.Errorf("%s holds %q, %v", path, got, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(d.Path(), "trash/a")); string(got) != "content 0" {
		t.Errorf("the first file was replaced: %q, %v", got, err)
	}
	if names, err := d.List(); len(names) > 0 || err != nil {
		t.Errorf("List = %q, %v", names, err)
	}
	if _, err := d.Trash("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestOnlyPlainNames(t *testing.T) {
	d := tempDir(t)
	create(t, d, "a", "")
	for _, name := range []string{"", ".", "..", "../a", "x/a", "/a", `x\a`} {
		ops := map[string]func() error{
			"Create": func() error { _, err := d.Create(name); return err },
			"Open":   func() error { _, err := d.Open(name); return err },
			"From":   func() error { return d.Rename(name, "b") },
			"To":     func() error { return d.Rename("a", name) },
			"Remove": func() error { return d.Remove(name) },
			"Trash":  func() error { _, err := d.Trash(name); return err },
			"Lock":   func() error { _, err := d.Lock(name); return err },
			"Locked": func() error { _, err := d.Locked(name); return err },
		}
		for op, do := range ops {
			if err := do(); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s(%q): %v", op, name, err)
			}
		}
	}
}

func TestAfterFunc(t *testing.T) {
	d := tempDir(t)
	fired := make(chan bool, 1)
	d.AfterFunc(time.Millisecond, func() { fired <- true })
	<-fired
	if stop := d.AfterFunc(time.Hour, func() {}); !stop() {
		t.Error("a waiting timer could not be stopped")
	}
}
