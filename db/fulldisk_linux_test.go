package db

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// skip says why a test can't run here. Where nothing may be skipped it fails.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// smallDisks are file systems, each on a disk of its own, that fill up soon.
var smallDisks = []struct {
	name string
	size int64
	mkfs []string
}{
	{"ext4", 64 << 20, []string{"mkfs.ext4", "-q", "-F"}},
	{"btrfs", 144 << 20, []string{"mkfs.btrfs", "-q", "-f"}},
	{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "-f"}},
	{"tmpfs", 64 << 20, nil},
}

// mountDisk mounts a new file system, which is tmpfs without mkfs.
func mountDisk(t *testing.T, size int64, mkfs []string) string {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "mounting needs root")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			skip(t, fmt.Sprintf("%v: %v: %s", args, err, out))
		}
		return strings.TrimSpace(string(out))
	}
	if mkfs == nil {
		run("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", mount)
	} else {
		if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
			t.Fatal(err)
		}
		run(append(mkfs, image)...)
		device := run("losetup", "--find", "--show", image)
		t.Cleanup(func() { exec.Command("losetup", "--detach", device).Run() })
		run("mount", device, mount)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mount
}

const (
	batchOnFullDisk = 64
	deletedOneByOne = 500
	deletedAtLeast  = 10_000 // so many deletes there is always room for
)

// fillUp puts values, a batch at a time and at last one by one, until the disk is
// full, and returns how many. What an attempt in vain has set aside is room for
// another, so it tries some more.
func fillUp(db *DB) (n int, err error) {
	for err == nil {
		var b Batch
		for i := range batchOnFullDisk {
			b.Put(fullKey(n+i), fullValue(n+i), nil)
		}
		if err = db.Apply(&b, nil); err == nil {
			n += batchOnFullDisk
		}
	}
	for refused := 0; refused < 8 && errors.Is(err, ErrNoSpace); refused++ {
		for err = nil; err == nil; n++ {
			err = db.Put(fullKey(n), fullValue(n), nil)
		}
		n-- // that one is not there
	}
	if !errors.Is(err, ErrNoSpace) {
		return n, err
	}
	return n, nil
}

// checkFull compares all keys, of which the first are deleted.
func checkFull(db *DB, deleted, n int) error {
	for i := range n {
		got, err := db.Get(nil, fullKey(i))
		if i < deleted && errors.Is(err, ErrNotFound) {
			continue
		}
		if i < deleted || err != nil || !bytes.Equal(got, fullValue(i)) {
			return fmt.Errorf("key %d of %d, the first %d deleted: %d bytes, %v", i, n, deleted, len(got), err)
		}
	}
	return nil
}

// refusedOnFullDisk makes sure that values of all sizes are refused, with no
// other error. File systems find some room yet, so that takes a few attempts.
func refusedOnFullDisk(db *DB) error {
	key := []byte("more")
	for _, size := range []int{8 << 10, 1 << 20, defaultBlobSize + 1, 4 << 10} {
		var err error
		for range 1000 {
			if err = db.Put(key, make([]byte, size), nil); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("put of %d bytes on a full disk: %v", size, err)
		}
	}
	if err := db.Delete(key, nil); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// fillDisk is the child that fills the disk, deletes keys one by one,
// says how many there were and waits to be killed.
func fillDisk(dir string) error {
	db, err := Open(dir, nil)
	if err != nil {
		return err
	}
	n, err := fillUp(db)
	if err != nil {
		return err
	}
	if err := errors.Join(refusedOnFullDisk(db), checkFull(db, 0, n)); err != nil {
		return err
	}
	for i := range deletedOneByOne {
		if err := db.Delete(fullKey(i), nil); err != nil {
			return fmt.Errorf("delete %d of %d: %w", i, n, err)
		}
	}
	if err := checkFull(db, deletedOneByOne, n); err != nil {
		return err
	}
	fmt.Println(n)
	select {}
}

// A disk that fills up makes puts fail with ErrNoSpace and nothing else: reads
// go on, deletes too, nothing acknowledged is lost, also if the process is
// killed and the disk is still full at the next start, no file stays open, and
// when there is room again the store writes on.
func TestFullDisk(t *testing.T) {
	for _, disk := range smallDisks {
		t.Run(disk.name, func(t *testing.T) { testFullDisk(t, mountDisk(t, disk.size, disk.mkfs)) })
	}
}

func testFullDisk(t *testing.T, mount string) {
	ballast, store := filepath.Join(mount, "ballast"), filepath.Join(mount, "store")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	n := killOnFullDisk(t, store)
	t.Logf("full after %d values", n)
	if n < 4000 {
		t.Fatalf("full after %d values", n)
	}
	deleted := deleteAll(t, store, n)
	waitClosed(t, store)
	db := open(t, store, nil)
	if keys := db.Stats().Keys; keys != n-deleted {
		t.Errorf("%d keys after %d of %d were deleted", keys, deleted, n)
	}
	if err := checkFull(db, deleted, n); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(ballast); err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "more", string(fullValue(99)))
	mustGet(t, db, "more", string(fullValue(99)))
}

// killOnFullDisk returns how many values a child has put before it was killed.
func killOnFullDisk(t *testing.T, store string) (n int) {
	child := fillCommand(store)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fscan(out, &n)
	child.Process.Kill()
	child.Wait()
	if err != nil {
		t.Fatal("the child failed: ", err)
	}
	return n
}

// deleteAll opens the store on the disk that is still full, deletes all, or at
// least as many as the reserve promises, and returns how many are gone.
func deleteAll(t *testing.T, store string, n int) (deleted int) {
	db, err := Open(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkFull(db, deletedOneByOne, n); err != nil {
		t.Fatal(err)
	}
	for deleted = deletedOneByOne; deleted < n; {
		var b Batch
		size := min(batchOnFullDisk, n-deleted)
		for i := range size {
			b.Delete(fullKey(deleted + i))
		}
		err := db.Apply(&b, nil)
		if errors.Is(err, ErrNoSpace) && deleted >= deletedAtLeast {
			break
		}
		if err != nil {
			t.Fatalf("delete, %d of %d done: %v", deleted, n, err)
		}
		deleted += size
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return deleted
}

// Space comes back on a full disk, in the same run and without anybody asking
// for it: after every other value was deleted there is room for half as much
// again, and nothing acknowledged is lost. On xfs, whose disks can't be as small,
// only with CROWFLY_FULL.
func TestFullDiskComesBack(t *testing.T) {
	for _, disk := range smallDisks {
		if disk.name == "xfs" && os.Getenv("CROWFLY_FULL") == "" {
			continue
		}
		t.Run(disk.name, func(t *testing.T) {
			db := open(t, filepath.Join(mountDisk(t, disk.size, disk.mkfs), "store"), &Options{Sync: SyncInterval})
			n, err := fillUp(db)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < n; i += 2 {
				err := db.Delete(fullKey(i), nil)
				if errors.Is(err, ErrNoSpace) && i/2 >= deletedAtLeast {
					err = whenThereIsRoom(db, func() error { return db.Delete(fullKey(i), nil) })
				}
				if err != nil {
					t.Fatalf("delete %d of %d: %v", i, n, err)
				}
			}
			more := n + n/4
			for i := n; i < more; i++ {
				if err := whenThereIsRoom(db, func() error { return db.Put(fullKey(i), fullValue(i), nil) }); err != nil {
					t.Fatalf("put %d of %d: %v", i, more, err)
				}
			}
			for i := range more {
				got, err := db.Get(nil, fullKey(i))
				if gone := i < n && i%2 == 0; gone != errors.Is(err, ErrNotFound) || !gone && !bytes.Equal(got, fullValue(i)) {
					t.Fatalf("key %d of %d: %d bytes, %v", i, n, len(got), err)
				}
			}
			t.Logf("%d values, then %d more, %+v", n, more-n, db.Stats().Compaction)
		})
	}
}

// whenThereIsRoom does a write, as soon as there is room for it.
func whenThereIsRoom(db *DB, write func() error) error {
	deadline := time.Now().Add(3 * time.Minute)
	err := write()
	for ; errors.Is(err, ErrNoSpace); err = write() {
		if time.Now().After(deadline) {
			return fmt.Errorf("after three minutes, %+v: %w", db.Stats(), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// waitClosed waits until the process has no file of a directory open or mapped:
// what is dropped the collector closes.
func waitClosed(t *testing.T, dir string) {
	const attempts = 200
	for range attempts {
		if len(openFiles(dir)) == 0 {
			return
		}
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("open or mapped: %q", openFiles(dir))
}

// openFiles are the descriptors and mappings of files in a directory.
func openFiles(dir string) (list []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
			list = append(list, target)
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, dir) {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}
