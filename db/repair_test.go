package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

func mustRepair(t *testing.T, disk *simdisk.Disk) check.RepairReport {
	t.Helper()
	report, err := check.Repair(context.Background(), "", &check.RepairOptions{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	found, err := check.Verify(context.Background(), "", &check.VerifyOptions{FS: disk})
	if err != nil || len(found.Damage) > 0 {
		t.Fatalf("after the repair: %+v, %v", found, err)
	}
	return report
}

// contents are all files of a disk but the lock.
func contents(disk *simdisk.Disk) map[string]string {
	list := make(map[string]string)
	for _, name := range append(disk.Names(), disk.Trashed()...) {
		if b, _ := disk.ReadFile(name); name != segment.LockName {
			list[name] = string(b)
		}
	}
	return list
}

// twoSegments makes a store that was killed when its second segment had just
// been begun, with a value in each.
func twoSegments(t *testing.T) *simdisk.Disk {
	t.Helper()
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	mustPut(t, db, "first", "value of the first segment")
	db.write.Lock()
	err := db.rotate(100)
	db.write.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "second", "value of the second segment")
	return disk.Clone()
}

// TestRepairLostManifest promises that segments which only a lost manifest named
// are found: the newest one is removed, and the one before lacks a segment.
func TestRepairLostManifest(t *testing.T) {
	disk := twoSegments(t)
	gen, _ := manifest.LatestGeneration(disk.Names())
	disk.Remove(segment.ManifestName(gen))
	var damage *CorruptError
	if _, err := Open("", blobOptions(disk)); !errors.As(err, &damage) || !strings.Contains(damage.Reason, "a manifest was lost") {
		t.Fatalf("Open: %v", err)
	}
	report := mustRepair(t, disk)
	if !report.ManifestLost || len(report.Lost)+len(report.Unknown) > 0 {
		t.Errorf("%+v", report)
	}
	db := open(t, "", blobOptions(disk))
	mustGet(t, db, "first", "value of the first segment")
	mustGet(t, db, "second", "value of the second segment")
}

// TestRepairVersions promises that a version that may have been lost is not
// given to another value.
func TestRepairVersions(t *testing.T) {
	disk := twoSegments(t)
	db := open(t, "", blobOptions(disk.Clone()))
	v, err := db.Value([]byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	lost := v.Version()
	v.Close()
	disk.Remove(names(disk, ".seg")[1])
	if report := mustRepair(t, disk); len(report.Unknown) != 1 {
		t.Errorf("%+v", report)
	}
	db = open(t, "", blobOptions(disk))
	mustPut(t, db, "second", "value of the second segment")
	if v, err = db.Value([]byte("second")); err != nil || v.Version().Seq <= lost.Seq {
		t.Errorf("version %v after %v, %v", v.Version(), lost, err)
	}
	v.Close()
}

// TestRepairRefuses promises that nothing is changed where a repair has no
// business: a writer has the lock, a record is of a newer version, there is no
// room for the copies.
func TestRepairRefuses(t *testing.T) {
	damaged := func() *simdisk.Disk {
		disk := twoSegments(t)
		b, _ := disk.ReadFile(names(disk, ".seg")[0])
		b[len(b)-60] ^= 1
		disk.WriteFile(names(disk, ".seg")[0], b)
		return disk
	}
	for name, c := range map[string]struct {
		disk *simdisk.Disk
		do   func(disk *simdisk.Disk)
		want error
	}{
		"locked": {damaged(), func(disk *simdisk.Disk) { disk.Lock(segment.LockName) }, ErrLocked},
		"newer":  {storeOfNewerRecord(t), func(*simdisk.Disk) {}, ErrNewer},
		"full": {damaged(), func(disk *simdisk.Disk) {
			disk.Fail(func(op, name string, n int) error {
				if op == simdisk.OpWriteVec && strings.Contains(name, "MANIFEST") {
					return syscall.ENOSPC
				}
				return nil
			})
		}, ErrNoSpace},
	} {
		c.do(c.disk)
		before := contents(c.disk)
		_, err := check.Repair(context.Background(), "", &check.RepairOptions{FS: c.disk})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		after := contents(c.disk)
		for file, content := range before {
			if after[file] != content {
				t.Errorf("%s: %s was changed", name, file)
			}
		}
		if name != "full" && !maps.Equal(before, after) {
			t.Errorf("%s: files were added", name)
		}
		if name == "full" {
			c.disk.Fail(nil)
			mustRepair(t, c.disk)
		}
	}
}

// storeOfNewerRecord makes a damaged store that has a record of a kind which only a
// newer version knows.
func storeOfNewerRecord(t *testing.T) *simdisk.Disk {
	t.Helper()
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	mustPut(t, db, "key", "value")
	w := db.writer.active
	w.Append(&segment.Record{Kind: 100, Flags: segment.FlagFirst, Seq: db.writer.seq + 1, Key: []byte("key")})
	if err := errors.Join(w.Flush(nil), db.Close()); err != nil {
		t.Fatal(err)
	}
	list := names(disk, "MANIFEST")
	b, _ := disk.ReadFile(list[len(list)-1])
	b[100] ^= 1
	disk.WriteFile(list[len(list)-1], b)
	return disk
}

// TestRepairUnreadable promises that a repair loses no more than the records in
// a page that the disk can't read.
func TestRepairUnreadable(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	for i := range 9 {
		mustPut(t, db, fmt.Sprint("key", i), strings.Repeat(fmt.Sprint(i), 2000))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	name := names(disk, ".seg")[0]
	// Each time the file is read: its header, a piece of it, and the pages of
	// the piece, of which the third fails.
	reads := 0
	disk.Fail(func(op, file string, n int) error {
		if op == simdisk.OpOpen && file == name {
			reads = 0
		}
		if op == simdisk.OpReadAt && file == name {
			if reads++; reads == 1 || reads == 4 {
				return syscall.EIO
			}
		}
		return nil
	})
	report, err := check.Repair(context.Background(), "", &check.RepairOptions{FS: disk})
	disk.Fail(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Lost) != 1 || string(report.Lost[0].Key) != "key3" || len(report.Unknown) != 1 {
		t.Errorf("%+v", report)
	}
	db = open(t, "", &Options{FS: disk})
	for i := range 9 {
		got, err := db.Get(nil, []byte(fmt.Sprint("key", i)))
		// Records of 2056 bytes from 64 on: those from the 4th to the 6th
		// have bytes in the third page.
		inPage := i >= 3 && i <= 5
		if inPage != errors.Is(err, ErrNotFound) || !inPage && string(got) != strings.Repeat(fmt.Sprint(i), 2000) {
			t.Errorf("key%d: %d bytes, %v", i, len(got), err)
		}
	}
}

// TestRepairDir promises the same on a real directory: what is damaged lies in
// the trash as it was, and repeated damage to files of the same name replaces
// nothing there.
func TestRepairDir(t *testing.T) {
	dir := t.TempDir()
	o := &Options{BlobSize: testBlobSize}
	for round := range 2 {
		db := open(t, dir, o)
		mustPut(t, db, "kept", "a value that stays")
		mustPut(t, db, "lost", "a value that goes")
		mustPut(t, db, "large", strings.Repeat("large", testBlobSize))
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		damaged := make(map[string][]byte)
		for file, text := range map[string]string{lastFile(t, dir, "*.seg"): "a value that goes", lastFile(t, dir, "*.blob"): "largelarge"} {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[bytes.LastIndex(b, []byte(text))] ^= 1
			if err := os.WriteFile(file, b, 0o666); err != nil {
				t.Fatal(err)
			}
			damaged[filepath.Base(file)] = b
		}
		report, err := check.Repair(context.Background(), dir, nil)
		if err != nil || len(report.Lost) != 2 || string(report.Lost[0].Key) != "large" || string(report.Lost[1].Key) != "lost" {
			t.Fatalf("round %d: %+v, %v", round, report, err)
		}
		for name, b := range damaged {
			if got, err := os.ReadFile(filepath.Join(dir, "trash", name)); !bytes.Equal(got, b) {
				t.Errorf("%s in the trash: %d bytes, %v", name, len(got), err)
			}
		}
		if report, err := check.Verify(context.Background(), dir, nil); err != nil || len(report.Damage) > 0 {
			t.Errorf("after the repair: %+v, %v", report, err)
		}
		db = open(t, dir, o)
		mustGet(t, db, "kept", "a value that stays")
		mustBeGone(t, db, "lost")
		mustBeGone(t, db, "large")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func lastFile(t *testing.T, dir, pattern string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(list) == 0 {
		t.Fatalf("no %s in %s", pattern, dir)
	}
	return list[len(list)-1]
}

// TestRepairDamagedProof promises that Open and repair agree on whether a manifest
// was lost: the record that proves it has a damaged value.
func TestRepairDamagedProof(t *testing.T) {
	disk := twoSegments(t)
	gen, _ := manifest.LatestGeneration(disk.Names())
	disk.Remove(segment.ManifestName(gen))
	name := names(disk, ".seg")[1]
	b, _ := disk.ReadFile(name)
	b[strings.Index(string(b), "value of the second")] ^= 1
	disk.WriteFile(name, b)
	if _, err := Open("", blobOptions(disk)); err == nil {
		t.Fatal("Open takes a store that has lost a manifest")
	}
	if report := mustRepair(t, disk); !report.ManifestLost || len(report.Damage) == 0 {
		t.Errorf("%+v", report)
	}
	mustGet(t, open(t, "", blobOptions(disk)), "first", "value of the first segment")
}

// TestRepairRenamed promises that a segment is found by its header when it has got
// a name that no segment has, with a manifest and without, also if a copy of it
// lies there too.
func TestRepairRenamed(t *testing.T) {
	for _, lost := range []bool{false, true} {
		disk := twoSegments(t)
		if lost {
			for _, name := range names(disk, "MANIFEST") {
				disk.Remove(name)
			}
		}
		name := names(disk, ".seg")[0]
		b, _ := disk.ReadFile(name)
		disk.Rename(name, segment.ID(0x77).FileName())
		disk.WriteFile(segment.ID(0x78).FileName(), b)
		report := mustRepair(t, disk)
		if len(report.Lost)+len(report.Unknown) > 0 || len(report.Damage) == 0 || report.Copied > 2 {
			t.Errorf("manifest lost %v: %+v", lost, report)
		}
		db := open(t, "", blobOptions(disk))
		mustGet(t, db, "first", "value of the first segment")
		mustGet(t, db, "second", "value of the second segment")
	}
}

// TestRepairForeign promises that the newest manifest says whose store it is, and
// not the number of files somebody else has left there.
func TestRepairForeign(t *testing.T) {
	disk, other := twoSegments(t), simdisk.New()
	db := open(t, "", &Options{FS: other, SegmentSize: 4 << 10})
	for i := range 20 {
		mustPut(t, db, fmt.Sprint("other", i), strings.Repeat("x", 1000))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(other, ".seg")[2:] {
		b, _ := other.ReadFile(name)
		disk.WriteFile(name, b)
	}
	report := mustRepair(t, disk)
	if len(report.Trashed) < 3 || len(report.Lost)+len(report.Unknown) > 0 {
		t.Errorf("%+v", report)
	}
	db = open(t, "", blobOptions(disk))
	mustGet(t, db, "first", "value of the first segment")
	mustGet(t, db, "second", "value of the second segment")
}

// TestRepairHuge promises that a file which pretends to be far larger than memory
// is no more than damage.
func TestRepairHuge(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, nil)
	mustPut(t, db, "key", "value")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	for _, name := range manifests {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	huge := filepath.Join(dir, segment.ID(0xff).FileName())
	if err := errors.Join(os.WriteFile(huge, nil, 0o666), os.Truncate(huge, 1<<40)); err != nil {
		t.Fatal(err)
	}
	if report, err := check.Verify(context.Background(), dir, nil); err != nil || report.Bytes > 2*manifest.MaxSegmentBytes {
		t.Errorf("%d bytes, %v", report.Bytes, err)
	}
	if _, err := check.Repair(context.Background(), dir, nil); err != nil {
		t.Fatal(err)
	}
	mustGet(t, open(t, dir, nil), "key", "value")
}
