package simdisk

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

var errDisk = errors.New("disk says no")

// failOnce makes the next operation of this kind fail.
func failOnce(d *Disk, op string, err error) {
	d.Fail(func(got, name string, n int) error {
		if got != op {
			return nil
		}
		d.Fail(nil)
		return err
	})
}

func TestFailedOpHasNoEffect(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "one", 0)
	ops := map[string]func() error{
		OpCreate:   func() error { _, err := d.Create("b"); return err },
		OpWriteVec: func() error { _, err := f.WriteVec([][]byte{{1}}, 0); return err },
		OpRename:   func() error { return d.Rename("a", "b") },
		OpRemove:   func() error { return d.Remove("a") },
		OpSyncDir:  d.SyncDir,
		OpReserve:  func() error { return f.Reserve(0, 1) },
		OpTrim:     f.Trim,
		OpLock:     func() error { _, err := d.Lock("b"); return err },
		OpOpen:     func() error { _, err := d.Open("a"); return err },
		OpReadAt:   func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		OpMap:      func() error { _, err := f.Map(1); return err },
		OpSize:     func() error { _, err := f.Size(); return err },
		OpList:     func() error { _, err := d.List(); return err },
		OpLocked:   func() error { _, err := d.Locked("a"); return err },
	}
	for op, do := range ops {
		failOnce(d, op, errDisk)
		err := do()
		if _, ok := errors.AsType[*fs.PathError](err); !ok || !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", op, err)
		}
		if got := strings.Join(d.Names(), " ") + " " + read(d, "a"); got != "a one" {
			t.Errorf("%s: the disk is now %q", op, got)
		}
	}
	lost := false
	for seed := range uint64(100) {
		lost = lost || len(d.Crash(newRand(seed)).Names()) == 0
	}
	if !lost {
		t.Error("a failed SyncDir made the name durable")
	}
}

func TestShortWrite(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	failOnce(d, OpWriteVec, Short{N: 4})
	n, err := f.WriteVec([][]byte{[]byte("one"), []byte("two")}, 0)
	if n != 4 || err != nil || read(d, "a") != "onet" {
		t.Errorf("WriteVec = %d, %v; file is %q", n, err, read(d, "a"))
	}
	failOnce(d, OpWriteVec, Short{N: 100})
	if n, err := f.WriteVec([][]byte{[]byte("wo")}, 4); n != 2 || err != nil {
		t.Errorf("WriteVec = %d, %v", n, err)
	}
	failOnce(d, OpWriteVec, Short{})
	if n, err := f.WriteVec([][]byte{[]byte("x")}, 0); n != 0 || err != nil {
		t.Errorf("WriteVec = %d, %v", n, err)
	}
}

// TestFailedSyncLosesWrites: what a failed sync lost, no later one brings back.
func TestFailedSyncLosesWrites(t *testing.T) {
	for _, op := range []string{OpDatasync, OpSync} {
		d := New()
		f := create(t, d, "a")
		sync := f.Datasync
		if op == OpSync {
			sync = f.Sync
		}
		check(t, d.SyncDir())
		write(t, f, "old", 0)
		check(t, sync())
		write(t, f, "new!", 0)
		failOnce(d, op, errDisk)
		if err := sync(); !errors.Is(err, errDisk) {
			t.Fatalf("%s: %v", op, err)
		}
		check(t, sync())
		if got := read(d, "a"); got != "new!" {
			t.Errorf("before the crash the file reads %q", got)
		}
		for seed := range uint64(1000) {
			if got := read(d.Crash(newRand(seed)), "a"); got != "old" && got != "old\x00" {
				t.Fatalf("seed %d: %q after a failed sync, a good one and a crash", seed, got)
			}
		}
		write(t, f, "end", 4)
		check(t, sync())
		for seed := range uint64(1000) {
			if got := read(d.Crash(newRand(seed)), "a"); got != "old\x00end" {
				t.Fatalf("seed %d: %q after the next write was synced", seed, got)
			}
		}
		d.DropCaches()
		if got := read(d, "a"); got != "old\x00end" {
			t.Errorf("after DropCaches the file reads %q", got)
		}
	}
}

func TestDropCachesKeepsDirtyPages(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "lost", 0)
	failOnce(d, OpDatasync, errDisk)
	if err := f.Datasync(); err == nil {
		t.Fatal("no error")
	}
	write(t, f, "d", 1)
	d.DropCaches()
	if got := read(d, "a"); got != "\x00d\x00\x00" {
		t.Errorf("file reads %q", got)
	}
	check(t, f.Datasync())
	check(t, d.SyncDir())
	if got := read(d.Crash(newRand(1)), "a"); !strings.HasPrefix(got, "\x00d") {
		t.Errorf("after a crash it reads %q", got)
	}
}
