package fuzz

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

var update = flag.Bool("update", false, "make the golden store anew; for a new format version only")

// golden is a store written by the first version, which every later one reads:
//
//	store/        a store as a killed process left it
//	special/      a segment with records that nothing writes yet
//	store.txt     what the store contains
//	records.txt   every record of every segment of both
//	hints/        their hints
var golden = filepath.Join("testdata", "golden", "v1")

// TestGoldenStore promises that stores of the first version can be read.
// Method: a copy of one is opened, read-only and for writing, and what it
// contains compared with a list.
func TestGoldenStore(t *testing.T) {
	if *update {
		makeGolden(t)
	}
	dir := t.TempDir()
	check(t, os.CopyFS(dir, os.DirFS(filepath.Join(golden, "store"))))
	for _, readOnly := range []bool{true, false, false} {
		store, err := db.Open(dir, &db.Options{ReadOnly: readOnly})
		check(t, err)
		compareGolden(t, "store.txt", list(t, store))
		check(t, store.Close())
	}
}

// TestGoldenRecords promises the same record by record.
func TestGoldenRecords(t *testing.T) {
	var b bytes.Buffer
	for _, part := range []string{"store", "special"} {
		paths, err := filepath.Glob(filepath.Join(golden, part, "*.seg"))
		check(t, err)
		for _, path := range paths {
			dump(t, &b, path)
		}
	}
	compareGolden(t, "records.txt", b.String())
}

// TestGoldenHints promises the same for hints: that one of the first version
// is still what this version would write, and is read.
func TestGoldenHints(t *testing.T) {
	for _, part := range []string{"store", "special"} {
		paths, err := filepath.Glob(filepath.Join(golden, part, "*.seg"))
		check(t, err)
		if len(paths) == 0 {
			t.Errorf("no segments in %s", part)
		}
		for _, path := range paths {
			goldenHint(t, path, part)
		}
	}
}

func goldenHint(t *testing.T, path, part string) {
	seg := goldenSegment(t, path)
	disk := simdisk.New()
	var tally segment.Tally
	for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
		check(t, err)
		tally.Add(&r)
	}
	check(t, addHint(disk, seg, tally))
	got, err := disk.ReadFile(seg.ID().HintName())
	check(t, err)
	name := filepath.Join(golden, "hints", part+"-"+seg.ID().HintName())
	if *update {
		check(t, os.MkdirAll(filepath.Dir(name), 0o755))
		check(t, os.WriteFile(name, got, 0o644))
	}
	want, err := os.ReadFile(name)
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("the hint of %s differs from %s", path, name)
	}
	disk.WriteFile(seg.ID().HintName(), want)
	wantHint(t, disk, seg, tally)
}

// goldenSegment opens a segment file.
func goldenSegment(t *testing.T, path string) *segment.Segment {
	fsys, err := vfs.OpenDir(filepath.Dir(path), false)
	check(t, err)
	id, ok := segment.ParseFileName(filepath.Base(path))
	if !ok {
		t.Fatalf("%s is no segment", path)
	}
	h, err := segment.ReadHeader(fsys, id)
	check(t, err)
	seg, err := segment.Open(fsys, id, h.Store, segment.WholeFile, 0)
	check(t, err)
	return seg
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(golden, name)
	if *update {
		check(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if got != string(want) {
		t.Errorf("%s differs:\n%s", name, got)
	}
}

// list writes down what a store contains, in order.
func list(t *testing.T, store *db.DB) string {
	var b strings.Builder
	snap, err := store.Snapshot()
	check(t, err)
	defer snap.Close()
	for key, e := range snap.All() {
		check(t, e.Err())
		value, err := e.Bytes()
		check(t, err)
		m, err := e.Metadata()
		check(t, err)
		fmt.Fprintf(&b, "%q: %s, version %v\n", key, short(value), e.Version())
		describeMetadata(&b, m)
	}
	return b.String()
}

func describeMetadata(b *strings.Builder, m segment.Metadata) {
	if !m.ModTime.IsZero() {
		fmt.Fprintf(b, "    modified %v\n", m.ModTime.Format(time.RFC3339Nano))
	}
	for _, p := range []segment.Pair{
		{Name: "content type", Value: m.ContentType}, {Name: "cache control", Value: m.CacheControl},
		{Name: "content encoding", Value: m.ContentEncoding}, {Name: "content disposition", Value: m.ContentDisposition},
	} {
		if p.Value != "" {
			fmt.Fprintf(b, "    %s %q\n", p.Name, p.Value)
		}
	}
	for kind, pairs := range [][]segment.Pair{m.Checksums, m.User, m.Unknown} {
		for _, p := range pairs {
			fmt.Fprintf(b, "    %s %q = %q\n", [...]string{"checksum", "user", "unknown"}[kind], p.Name, p.Value)
		}
	}
}

// short is a value in few words.
func short(value []byte) string {
	if len(value) <= 40 {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%d bytes %.16q... with sum %016x", len(value), value, xxhash.Sum64(value))
}

// dump writes down the header of a segment file and all records in it.
func dump(t *testing.T, b *bytes.Buffer, path string) {
	seg := goldenSegment(t, path)
	fsys, err := vfs.OpenDir(filepath.Dir(path), false)
	check(t, err)
	h, err := segment.ReadHeader(fsys, seg.ID())
	check(t, err)
	fmt.Fprintf(b, "%s: %d bytes\n", filepath.ToSlash(path), seg.Len())
	fmt.Fprintf(b, "%9d header magic %08x store %v file %d salt %016x epoch %d\n", 0, uint32(h.Magic), h.Store, h.File, h.Salt, h.Epoch)
	for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
		check(t, err)
		check(t, r.VerifyValue())
		b.WriteString(describeRecord(&r))
	}
	tail := seg.RecoverTail(segment.HeaderSize)
	fmt.Fprintf(b, "%9d end, valid to %d, proven to %d\n\n", seg.Len(), tail.Valid, tail.Proven)
}

func describeRecord(r *segment.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%9d kind %d flags %05b left %d seq %d durableTo %d sum %016x key %q\n",
		r.Offset, r.Kind, r.Flags, r.Left, r.Seq, r.DurableTo, r.Sum, r.Key)
	if r.Flags&segment.FlagExpiry != 0 {
		fmt.Fprintf(&b, "%9d expires %v\n", r.Offset+48+int64(len(r.Key)), time.UnixMilli(r.Expiry).UTC().Format(time.RFC3339))
	}
	if m, err := segment.DecodeMetadata(r.Meta); err == nil {
		describeMetadata(&b, m)
	}
	if len(r.Value) > 0 {
		fmt.Fprintf(&b, "%9d value %s\n", r.ValueOffset(), short(r.Value))
	}
	if r.Kind == segment.KindBlobRef {
		extents, size, err := segment.DecodeBlobExtents(r.Value)
		fmt.Fprintf(&b, "          stands for %d bytes: %+v %v\n", size, extents, err)
	}
	if len(r.Table) > 0 {
		fmt.Fprintf(&b, "          table of %d chunks of %d bytes\n", r.Table.Chunks(), r.Table.ChunkSize())
	}
	return b.String()
}

// makeGolden writes the store and the segment.
func makeGolden(t *testing.T) {
	check(t, os.RemoveAll(golden))
	special, store := filepath.Join(golden, "special"), t.TempDir()
	check(t, os.MkdirAll(special, 0o755))
	writeSpecial(t, special)

	closed := func(write func(*testing.T, *db.DB)) {
		s, err := db.Open(store, &db.Options{SegmentSize: 64 << 10})
		check(t, err)
		write(t, s)
		check(t, s.Close())
	}
	closed(goldenPuts)
	closed(func(t *testing.T, s *db.DB) { goldenPut(t, s, "second run", "to be copied by the third", nil) })
	closed(func(t *testing.T, s *db.DB) { check(t, s.Delete([]byte("deleted later"), nil)) })

	s, err := db.Open(store, &db.Options{SegmentSize: 64 << 10})
	check(t, err)
	goldenPut(t, s, "proven by a watermark", "which follows", nil)
	time.Sleep(10 * watermark)
	goldenPut(t, s, "not proven", "the last before the process was killed", nil)
	check(t, os.CopyFS(filepath.Join(golden, "store"), os.DirFS(store)))
	check(t, s.Close())
}

func goldenPut(t *testing.T, s *db.DB, key, value string, m *db.Metadata) {
	check(t, s.Put([]byte(key), []byte(value), &db.PutOptions{Metadata: m}))
}

// goldenPuts is the first run: everything there is.
func goldenPuts(t *testing.T, s *db.DB) {
	goldenPut(t, s, "all metadata", "value", &db.Metadata{
		ModTime:     time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		ContentType: "text/plain", CacheControl: "no-store",
		ContentEncoding: "gzip", ContentDisposition: "attachment",
		Checksums: []db.Pair{{Name: "md5", Value: "\x01\x02\x00\xff"}},
		User:      []db.Pair{{Name: "color", Value: "black"}, {Name: "empty", Value: ""}},
		Unknown:   []db.Pair{{Name: "\xf0", Value: "a field of a later version"}},
	})
	goldenPut(t, s, "empty", "", nil)
	goldenPut(t, s, "\x00 odd \xff", "key", nil)
	goldenPut(t, s, strings.Repeat("long key ", 100), strings.Repeat("of 900 bytes ", 500), nil)
	goldenPut(t, s, "overwritten", "before", nil)
	goldenPut(t, s, "overwritten", "after", nil)
	goldenPut(t, s, "deleted", "gone", nil)
	goldenPut(t, s, "deleted later", "gone", nil)
	check(t, s.Delete([]byte("deleted"), nil))
	if err := s.Delete([]byte("never there"), nil); !errors.Is(err, db.ErrNotFound) {
		t.Fatal(err)
	}

	var b db.Batch
	b.Put([]byte("batch 1"), []byte("together"), nil)
	b.Delete([]byte("overwritten"))
	b.Put([]byte("batch 2"), []byte("together"), &db.Metadata{ContentType: "text/plain"})
	check(t, s.Apply(&b, nil))

	goldenPut(t, s, "chunked", strings.Repeat("0123456789abcdef", 1100<<10/16), nil)
}

// writeSpecial writes the records that nothing writes yet.
func writeSpecial(t *testing.T, dir string) {
	fsys, err := vfs.OpenDir(dir, true)
	check(t, err)
	records := slices.Concat(specialRecords(), ordinaryRecords())
	_, w, err := segment.Create(fsys, 1, segment.NewStoreID(), 1, 64<<10)
	check(t, err)
	for i, r := range records {
		r.Seq = uint64(i + 1)
		w.Append(r)
	}
	check(t, errors.Join(w.Write(), w.Sync(), w.Trim()))
}
