package db

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// openIn counts the descriptors and mappings of this process that lead into a
// directory.
func openIn(t *testing.T, dir string) (descriptors, mappings int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); strings.HasPrefix(target, dir+"/") {
			descriptors++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return descriptors, strings.Count(string(maps), dir+"/")
}

// TestCloseLetsFilesGo promises that after Close, with no handle open, no file of
// the store is open or mapped, of a writer and of a read-only store.
func TestCloseLetsFilesGo(t *testing.T) {
	dir := t.TempDir()
	options := &Options{Sync: SyncNever, SegmentSize: minSegmentSize, BlobSize: 16 << 10}
	store := open(t, dir, options)
	for i := range 120 {
		mustPut(t, store, fmt.Sprintf("k%06d", i), string(make([]byte, 2000)))
	}
	mustPut(t, store, "large", string(make([]byte, 40<<10)))
	mustGet(t, store, "large", string(make([]byte, 40<<10)))
	if n, _ := openIn(t, dir); n < 20 {
		t.Fatalf("only %d files are open", n)
	}
	closeNow(t, store)
	if descriptors, mappings := openIn(t, dir); descriptors+mappings > 0 {
		t.Errorf("after Close %d descriptors and %d mappings are left", descriptors, mappings)
	}
	reader := open(t, dir, &Options{ReadOnly: true})
	mustGet(t, reader, "large", string(make([]byte, 40<<10)))
	closeNow(t, reader)
	if descriptors, mappings := openIn(t, dir); descriptors+mappings > 0 {
		t.Errorf("after Close of a read-only store %d descriptors and %d mappings are left", descriptors, mappings)
	}
}

const fewDescriptors = "CROWFLY_TEST_FEW_DESCRIPTORS"

// TestFewDescriptors promises that descriptors which only a collection gives back
// do not keep a store from being opened or written to. Method: a child process
// that may have few of them drops stores without closing them.
func TestFewDescriptors(t *testing.T) {
	if dir := os.Getenv(fewDescriptors); dir != "" {
		wasteDescriptors(t, dir)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestFewDescriptors$")
	child.Env = append(os.Environ(), fewDescriptors+"="+t.TempDir(), "GOGC=off")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func wasteDescriptors(t *testing.T, dir string) {
	limit := syscall.Rlimit{Cur: 200, Max: 200}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	options := &Options{Sync: SyncNever, SegmentSize: minSegmentSize}
	for run := range 3 {
		store, err := Open(filepath.Join(dir, "store"), options)
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		for i := range 40 {
			mustPut(t, store, fmt.Sprintf("%d k%06d", run, i), string(make([]byte, 2000)))
		}
		value, err := store.Value([]byte(fmt.Sprintf("%d k%06d", run, 0)))
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); !errors.Is(err, ErrOpenHandles) {
			t.Fatal(err)
		}
		value.Close() // too late for Close to let go of the files
	}
}
