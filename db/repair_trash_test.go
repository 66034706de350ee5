package db

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// damagedSegments is twoSegments with damage to the first value.
func damagedSegments(t *testing.T) *simdisk.Disk {
	t.Helper()
	disk := twoSegments(t)
	name := names(disk, ".seg")[0]
	b, _ := disk.ReadFile(name)
	b[strings.Index(string(b), "value of the first")] ^= 1
	disk.WriteFile(name, b)
	return disk
}

// TestRepairCutOffThenOpen promises that nothing is deleted if a store is opened
// after a repair that could move nothing to the trash: Open does it, and if that
// fails too, the next one. Method: the trash fails, and the damaged segment and the
// old manifests must still be somewhere.
func TestRepairCutOffThenOpen(t *testing.T) {
	disk := damagedSegments(t)
	before := contents(disk)
	maps.DeleteFunc(before, func(name, _ string) bool {
		return name != names(disk, ".seg")[0] && !strings.HasPrefix(name, "MANIFEST")
	})
	disk.Fail(func(op, _ string, _ int) error {
		if op == simdisk.OpTrash {
			return syscall.EIO
		}
		return nil
	})
	if _, err := check.Repair(context.Background(), "", &check.RepairOptions{FS: disk}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Repair: %v", err)
	}
	for round := range 3 {
		if round == 1 {
			disk.Fail(nil)
		}
		db := open(t, "", blobOptions(disk))
		mustGet(t, db, "second", "value of the second segment")
		mustPut(t, db, "third", "value")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		after := slices.Collect(maps.Values(contents(disk)))
		for name, content := range before {
			if !slices.Contains(after, content) {
				t.Errorf("round %d: %s was deleted", round, name)
			}
		}
	}
	moved := disk.Trashed()
	if m, err := manifest.Read(disk, disk.Names()); err != nil || m.Repaired || len(moved) < len(before) {
		t.Errorf("%q in the trash, manifest %+v, %v", moved, m, err)
	}
}

// TestRepairNoTrash promises that a repair stops before it commits to anything if
// there can be no trash, and never follows a link out of the directory.
func TestRepairNoTrash(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	disk := damagedSegments(t)
	for name, content := range contents(disk) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	trash := filepath.Join(dir, "trash")
	for what, block := range map[string]func() error{
		"file": func() error { return os.WriteFile(trash, nil, 0o666) },
		"link": func() error { return os.Symlink(outside, trash) },
	} {
		if err := block(); err != nil {
			t.Fatal(err)
		}
		_, err := check.Repair(context.Background(), dir, nil)
		if !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", what, err)
		}
		for name, content := range contents(disk) {
			if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != content {
				t.Errorf("%s: %s: %d bytes, %v", what, name, len(b), err)
			}
		}
		if list, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*")); len(list) != 2 {
			t.Errorf("%s: manifests %q", what, list)
		}
		if list, _ := os.ReadDir(outside); len(list) > 0 {
			t.Errorf("%s: %v lies outside", what, list)
		}
		if err := os.Remove(trash); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := check.Repair(context.Background(), dir, nil); err != nil {
		t.Error(err)
	}
}

// TestRepairFails promises that a repair which fails before its manifest is there
// leaves no copies behind: without a manifest the next one would take them for
// segments. Method: each operation that a repair needs fails several times.
func TestRepairFails(t *testing.T) {
	for fails, nth := range map[string]int{
		simdisk.OpRename: 1, simdisk.OpMakeTrash: 1, simdisk.OpSync: 1, // for the manifest
		simdisk.OpCreate: 2, simdisk.OpWriteVec: 3, simdisk.OpTrim: 2, simdisk.OpDatasync: 3, // of the second copy
	} {
		disk := twoSegments(t)
		for _, name := range names(disk, "MANIFEST") {
			disk.Remove(name)
		}
		before := names(disk, ".seg")
		for range 3 {
			calls := 0
			disk.Fail(func(op, _ string, _ int) error {
				if op != fails {
					return nil
				}
				if calls++; calls < nth {
					return nil
				}
				return syscall.EIO
			})
			if _, err := check.Repair(context.Background(), "", &check.RepairOptions{FS: disk}); !errors.Is(err, syscall.EIO) {
				t.Fatalf("%s: %v", fails, err)
			}
		}
		if after := names(disk, ".seg"); !slices.Equal(after, before) {
			t.Errorf("%s: segments %q, before %q", fails, after, before)
		}
		disk.Fail(nil)
		if report := mustRepair(t, disk); report.Copied != 2 {
			t.Errorf("%s: %+v", fails, report)
		}
	}
}

// TestCutOffUnreadable promises that Open finishes a repair that was cut off
// although what it replaced can't be read.
func TestCutOffUnreadable(t *testing.T) {
	disk := damagedSegments(t)
	bad := names(disk, ".seg")[0]
	noTrash := true
	disk.Fail(func(op, name string, _ int) error {
		if op == simdisk.OpTrash && noTrash || op == simdisk.OpReadAt && name == bad {
			return syscall.EIO
		}
		return nil
	})
	if _, err := check.Repair(context.Background(), "", &check.RepairOptions{FS: disk}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a repair without a trash: %v", err)
	}
	noTrash = false
	open(t, "", blobOptions(disk))
	if !slices.ContainsFunc(disk.Trashed(), func(name string) bool { return strings.Contains(name, bad) }) {
		t.Errorf("%s is not among %v", bad, disk.Trashed())
	}
}
