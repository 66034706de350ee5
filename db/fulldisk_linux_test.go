package db

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// skip says why a test can't run here. Where nothing may be skipped it fails.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// mountExt4 mounts a small file system of its own.
func mountExt4(t *testing.T, size int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "mounting needs root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", image},
		{"mount", "-o", "loop", image, mount},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			skip(t, fmt.Sprintf("%v: %v: %s", args, err, out))
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mount
}

// A disk that fills up makes writes fail with ErrNoSpace and nothing else:
// reads go on, nothing acknowledged is lost, and when there is room again the
// same store writes on.
func TestFullDisk(t *testing.T) {
	dir := mountExt4(t, 64<<20)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	db := open(t, store, nil)
	value := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	n := 0
	for ; ; n++ {
		err := db.Put(fmt.Append(nil, n), value, nil)
		if errors.Is(err, ErrNoSpace) {
			t.Log(err)
			break
		}
		if err != nil || n > 1000 {
			t.Fatal(n, err)
		}
	}
	if n < 50 {
		t.Fatalf("full after %d values", n)
	}
	for range 3 {
		if err := db.Put([]byte("more"), value, nil); !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
	}
	checkAll := func(db *DB) {
		t.Helper()
		for i := range n {
			mustGet(t, db, fmt.Sprint(i), string(value))
		}
	}
	checkAll(db)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "more", string(value))
	checkAll(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, store, nil)
	checkAll(db)
	mustGet(t, db, "more", string(value))
}
