package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteVec(t *testing.T) {
	f := create(t, tempDir(t), "a", "")
	n, err := f.WriteVec([][]byte{[]byte("one"), nil, []byte("two")}, 2)
	if n != 6 || err != nil {
		t.Fatalf("WriteVec = %d, %v", n, err)
	}
	if n, err := f.WriteVec(nil, 0); n != 0 || err != nil {
		t.Errorf("WriteVec of nothing = %d, %v", n, err)
	}
	p := make([]byte, 10)
	if n, err := f.ReadAt(p, 0); string(p[:n]) != "\x00\x00onetwo" || err != io.EOF {
		t.Errorf("file has %q, %v", p[:n], err)
	}
	check(t, f.Datasync())
	check(t, f.Sync())
}

// TestWriteVecManyBuffers passes more buffers than one system call takes: the
// count says how far it came.
func TestWriteVecManyBuffers(t *testing.T) {
	f := create(t, tempDir(t), "a", "")
	want := bytes.Repeat([]byte("0123456789"), 300)
	left := make([][]byte, len(want))
	for i := range want {
		left[i] = want[i : i+1]
	}
	for off := 0; len(left) > 0; {
		n, err := f.WriteVec(left, int64(off))
		check(t, err)
		if n == 0 {
			t.Fatal("WriteVec wrote nothing")
		}
		off, left = off+n, left[n:]
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); !bytes.Equal(got, want) {
		t.Errorf("the file differs from what was written: %v", err)
	}
}

func TestClosedFile(t *testing.T) {
	d := tempDir(t)
	f := create(t, d, "a", "x")
	check(t, f.Close())
	path := filepath.Join(d.Path(), "a")
	for op, do := range map[string]func() error{
		"WriteVec": func() error { _, err := f.WriteVec([][]byte{{1}}, 0); return err },
		"Datasync": f.Datasync,
		"Sync":     f.Sync,
		"Size":     func() error { _, err := f.Size(); return err },
		"Map":      func() error { _, err := f.Map(1); return err },
		"Close":    f.Close,
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s of a closed file: %v", op, err)
		}
	}
}

// TestReserve fills what was reserved and more, and checks that neither
// Reserve nor Trim changes the size.
func TestReserve(t *testing.T) {
	const reserved = 1 << 20
	f := create(t, tempDir(t), "a", "start")
	wantSize := func(want int64) {
		t.Helper()
		if size, err := f.Size(); size != want || err != nil {
			t.Fatalf("Size = %d, %v; want %d", size, err, want)
		}
	}
	check(t, f.Reserve(0, reserved))
	wantSize(5)
	check(t, f.Trim())
	wantSize(5)
	check(t, f.Reserve(0, reserved))
	writeAll(t, f, make([]byte, reserved+1), 5)
	check(t, f.Trim())
	wantSize(reserved + 6)
	p := make([]byte, 5)
	if _, err := f.ReadAt(p, 0); string(p) != "start" {
		t.Errorf("the file now starts with %q, %v", p, err)
	}
}

func TestMapRefusesSize(t *testing.T) {
	d := tempDir(t)
	f := create(t, d, "a", "x")
	for _, size := range []int64{0, -1} {
		if _, err := f.Map(size); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Map(%d): %v", size, err)
		}
	}
}
