package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

func mustVerify(t *testing.T, db *DB) check.VerifyReport {
	t.Helper()
	report, err := db.Verify(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// fillBlobs makes a store with values of every size and some that are dead.
func fillBlobs(t *testing.T, disk *simdisk.Disk) *DB {
	t.Helper()
	db := open(t, "", blobOptions(disk))
	for i := range 60 {
		key := []byte(fmt.Sprint("key", i%20))
		var err error
		if i%7 == 6 {
			if err = db.Delete(key, nil); errors.Is(err, ErrNotFound) {
				err = nil
			}
		} else {
			err = db.Put(key, randomBytes(i*i*17%(2*testBlobSize)), &PutOptions{Metadata: &Metadata{ContentType: "a/b"}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// TestVerifyWhole promises that a whole store has no damage, open for writing,
// open for reading and closed, that all of it was read and that progress says
// so.
func TestVerifyWhole(t *testing.T) {
	disk := simdisk.New()
	db := fillBlobs(t, disk)
	var size int64
	for _, name := range disk.Names() {
		b, _ := disk.ReadFile(name)
		size += int64(len(b))
	}
	verified := func(what string, verify func(progress func(check.Progress)) (check.VerifyReport, error)) {
		t.Helper()
		var last check.Progress
		report, err := verify(func(p check.Progress) {
			if p.Done < last.Done || p.Done > p.Total || p.File == "" {
				t.Errorf("%s: progress %+v after %+v", what, p, last)
			}
			last = p
		})
		// Of a blob the header, padding and table are not counted.
		if err != nil || len(report.Damage) > 0 || report.Records < 50 || report.Bytes != last.Done || report.Bytes < size*3/4 {
			t.Errorf("%s: %+v, %v, %d bytes in all", what, report, err, size)
		}
	}
	ctx := context.Background()
	verified("writer", func(p func(check.Progress)) (check.VerifyReport, error) { return db.Verify(ctx, p) })
	follower := open(t, "", &Options{FS: disk, ReadOnly: true})
	verified("follower", func(p func(check.Progress)) (check.VerifyReport, error) { return follower.Verify(ctx, p) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	verified("closed", func(p func(check.Progress)) (check.VerifyReport, error) {
		return check.Verify(ctx, "", &check.VerifyOptions{FS: disk, Progress: p})
	})
	if _, err := db.Verify(ctx, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed store: %v", err)
	}
}

// TestVerifyFindsAll promises that verify goes on behind damage and names file,
// offset and key: of a value, a blob, a record overwritten since and a manifest
// of which one image is whole.
func TestVerifyFindsAll(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	for _, kv := range [][2]string{{"a", "old value"}, {"a", "new value"}, {"b", "other value"}, {"c", strings.Repeat("large", 10000)}} {
		if err := db.Put([]byte(kv[0]), []byte(kv[1]), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	flip := func(name string, at func(content string) int) {
		b, _ := disk.ReadFile(name)
		b[at(string(b))] ^= 1
		disk.WriteFile(name, b)
	}
	seg, blob := names(disk, ".seg")[0], names(disk, ".blob")[0]
	manifests := names(disk, segment.ManifestName(0)[:9])
	flip(seg, func(s string) int { return strings.Index(s, "old value") })
	flip(seg, func(s string) int { return strings.Index(s, "other value") })
	flip(blob, func(s string) int { return strings.Index(s, "large") + 12345 })
	flip(manifests[len(manifests)-1], func(s string) int { return len(s)/2 + 100 })

	db = open(t, "", &Options{FS: disk, ReadOnly: true})
	var got []string
	for _, d := range mustVerify(t, db).Damage {
		got = append(got, fmt.Sprintf("%s %q", d.Err.Path[len("simdisk/"):], d.Key))
	}
	want := []string{manifests[len(manifests)-1] + ` ""`, seg + ` "a"`, seg + ` "b"`, blob + ` "c"`}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// TestVerifyReadError promises that a page the disk can't read is damage at its
// offset, and that the others are read.
func TestVerifyReadError(t *testing.T) {
	disk := simdisk.New()
	if err := fillBlobs(t, disk).Close(); err != nil {
		t.Fatal(err)
	}
	name := names(disk, ".seg")[0]
	reads := 0
	disk.Fail(func(op, file string, n int) error {
		if op != simdisk.OpReadAt || file != name {
			return nil
		}
		// Of the header, of a piece, and of its pages, the second of which fails.
		if reads++; reads == 2 || reads == 4 {
			return syscall.EIO
		}
		return nil
	})
	report, err := check.Verify(context.Background(), "", &check.VerifyOptions{FS: disk})
	if err != nil || len(report.Damage) == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	d := report.Damage[0]
	if d.Err.Offset != 4<<10 || d.To != 2*(4<<10) || !strings.Contains(d.Err.Error(), name) || !strings.Contains(d.Err.Reason, "can't be read") {
		t.Errorf("%v to %d", d.Err, d.To)
	}
	for _, d := range report.Damage {
		if d.To <= 4<<10 || d.Err.Offset >= 2*(4<<10) && d.Err.Path == report.Damage[0].Err.Path {
			t.Errorf("damage outside the page: %v to %d", d.Err, d.To)
		}
	}
}

// TestVerifyCancelled promises that the end of the context ends a verification.
func TestVerifyCancelled(t *testing.T) {
	db := fillBlobs(t, simdisk.New())
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err := db.Verify(ctx, func(check.Progress) { calls++; cancel() })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// TestVerifyManifest promises that no byte of the newest manifest changes unnoticed,
// and that a repair makes it good.
func TestVerifyManifest(t *testing.T) {
	disk := simdisk.New()
	if err := fillBlobs(t, disk).Close(); err != nil {
		t.Fatal(err)
	}
	gen, _ := manifest.LatestGeneration(disk.Names())
	whole, _ := disk.ReadFile(segment.ManifestName(gen))
	for i := 0; i < len(whole); i += 101 {
		b := slices.Clone(whole)
		b[i] ^= 1
		disk.WriteFile(segment.ManifestName(gen), b)
		report, err := check.Verify(context.Background(), "", &check.VerifyOptions{FS: disk})
		if err != nil || len(report.Damage) != 1 {
			t.Errorf("byte %d: %+v, %v", i, report.Damage, err)
		}
	}
	if report := mustRepair(t, disk); report.ManifestLost || report.Copied > 0 {
		t.Errorf("%+v", report)
	}
}

// TestVerifyClosed promises that a store which is closed meanwhile is not taken for
// a damaged one.
func TestVerifyClosed(t *testing.T) {
	db := fillBlobs(t, simdisk.New())
	report, err := db.Verify(context.Background(), func(p check.Progress) {
		if strings.HasSuffix(p.File, ".seg") {
			db.Close()
		}
	})
	if !errors.Is(err, ErrClosed) || len(report.Damage) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestVerifyIndex promises that an index which differs from the files is found
// out: it lacks a key or has an older version of it. Method: the index is told
// of a deletion that was never written, or to point to an older record.
func TestVerifyIndex(t *testing.T) {
	for name, spoil := range map[string]func(x *index.Index, key []byte, oldest, newest index.Hit){
		"lacks it": func(x *index.Index, key []byte, _, newest index.Hit) {
			ref := newest.Segment.Ref(newest.Offset)
			x.Publish([]index.Change{{Key: key, Ref: ref, Seq: newest.Seq + 1, Kind: segment.KindDelete}}, 0)
		},
		"has an older version": func(x *index.Index, key []byte, oldest, newest index.Hit) {
			x.Repoint([]index.Move{{Key: key, Old: newest.Segment.Ref(newest.Offset), New: oldest.Segment.Ref(oldest.Offset)}})
		},
	} {
		db := open(t, "", blobOptions(simdisk.New()))
		key := []byte("key")
		hit := func(value string) index.Hit {
			mustPut(t, db, string(key), value)
			h, err := db.lookup(key)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		oldest, newest := hit("old"), hit("new")
		if report := mustVerify(t, db); len(report.Damage) > 0 {
			t.Fatalf("before: %+v", report)
		}
		spoil(db.index, key, oldest, newest)
		report := mustVerify(t, db)
		if len(report.Damage) != 1 || string(report.Damage[0].Key) != "key" || !strings.Contains(report.Damage[0].Err.Reason, "the index") {
			t.Errorf("%s: %+v", name, report)
		}
	}
}

// TestVerifySuperseded promises that a segment that goes while verify is under
// way is not missing if a newer manifest does without it. Method: a fold removes
// it just before it is opened.
func TestVerifySuperseded(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	for i := range 3 {
		mustPut(t, db, "key", fmt.Sprint("value ", i))
		db.write.Lock()
		err := db.rotate(100)
		db.write.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	first, headers := names(disk, ".seg")[0], 0
	disk.Fail(func(op, name string, n int) error {
		if op == simdisk.OpOpen && name == first {
			// To be measured, for its header, and to be read.
			if headers++; headers == 3 {
				db.fold()
			}
		}
		return nil
	})
	report := mustVerify(t, db)
	if len(report.Damage) > 0 {
		t.Errorf("%v", report.Damage[0].Err)
	}
	if b, err := disk.ReadFile(first); err == nil || headers != 3 {
		t.Errorf("the segment of %d bytes is still there after %d looks", len(b), headers)
	}
}

// atManifest calls f in the middle of listing and reading: when a manifest is
// opened for the nth time.
func atManifest(disk *simdisk.Disk, nth int, f func()) {
	opened := 0
	disk.Fail(func(op, name string, n int) error {
		if _, ok := segment.ParseManifestName(name); op == simdisk.OpOpen && ok {
			if opened++; opened == nth {
				f()
			}
		}
		return nil
	})
}

// TestVerifyManifestsGone promises that damage is found also if a writer replaces
// every manifest between the listing of the directory and the reading of them.
func TestVerifyManifestsGone(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	mustPut(t, db, "key", "value")
	mustPut(t, db, "later", "proves that the other one was durable")
	name := activeFile(t, disk)
	b, _ := disk.ReadFile(name)
	b[strings.Index(string(b), "value")] ^= 1
	disk.WriteFile(name, b)
	atManifest(disk, 1, func() {
		for range 2 {
			if err := db.editManifest(func(*manifest.List) {}); err != nil {
				t.Error(err)
			}
		}
	})
	report, err := check.Verify(context.Background(), "", &check.VerifyOptions{FS: disk})
	if err != nil || len(report.Damage) != 1 || string(report.Damage[0].Key) != "key" {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestVerifyCompacted promises that a follower's index is not held against files
// that a compaction replaced after the follower had looked at them.
func TestVerifyCompacted(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	mustPut(t, db, "key", "value")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, "", blobOptions(disk))
	follower := open(t, "", &Options{FS: disk, ReadOnly: true})
	// The first opening is that of Refresh.
	atManifest(disk, 2, func() {
		if err := db.newCompaction([]*segment.Segment{db.index.Segments().Find(1)}).run(); err != nil {
			t.Error(err)
		}
	})
	if report := mustVerify(t, follower); len(report.Damage) > 0 || report.Records != 1 {
		t.Errorf("%+v", report)
	}
}

// TestVerifyBesideWrites promises that verify takes nothing for damage that a
// writer, a rotation or a fold does meanwhile, in the same store and beside it.
func TestVerifyBesideWrites(t *testing.T) {
	dir := t.TempDir()
	o := &Options{SegmentSize: 64 << 10, BlobSize: 8 << 10, Sync: SyncNever}
	writer := open(t, dir, o)
	follower := open(t, dir, &Options{ReadOnly: true})
	stop := make(chan bool)
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			key := []byte(fmt.Sprint(i % 300))
			err := writer.Put(key, randomBytes(i*31%9000), nil)
			if i%3 == 0 {
				err = errors.Join(err, writer.Delete(key, nil))
			}
			if i%50 == 0 {
				writer.write.Lock()
				err = errors.Join(err, writer.rotate(100))
				writer.write.Unlock()
				writer.fold()
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 15 {
		for what, db := range map[string]*DB{"writer": writer, "follower": follower} {
			if report := mustVerify(t, db); len(report.Damage) > 0 {
				t.Errorf("%s: %v of %d", what, report.Damage[0].Err, len(report.Damage))
			}
		}
	}
	close(stop)
	group.Wait()
}
