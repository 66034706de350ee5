package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// Values of a few pages get files of their own here.
const testBlobSize = 16 << 10

func blobOptions(disk *simdisk.Disk) *Options {
	return &Options{FS: disk, BlobSize: testBlobSize, SegmentSize: 64 << 10}
}

func randomBytes(n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func putReader(db *DB, key string, r io.Reader, size int64) error {
	_, err := db.PutReader(context.Background(), []byte(key), r, size, nil)
	return err
}

// names lists the files of one kind.
func names(disk *simdisk.Disk, part string) (list []string) {
	for _, name := range disk.Names() {
		if strings.Contains(name, part) {
			list = append(list, name)
		}
	}
	return list
}

// A value that is held in memory takes about as much of it as has come, so what stalls
// does not take what may never come. Method: how much its reader is asked for.
func TestPutReaderTakesMemoryAsItComes(t *testing.T) {
	const size = 5<<20 + 1
	db := open(t, "", &Options{FS: simdisk.New()})
	for _, said := range []int64{size, -1} {
		r := &askedReader{t: t, left: size}
		if err := putReader(db, "k", r, said); err != nil {
			t.Fatal(err)
		}
	}
}

// askedReader fails if it is asked for more than there was before, or at the beginning
// of a MiB for more than 64 KiB. It gives all that it is asked for.
type askedReader struct {
	t          *testing.T
	come, left int
}

func (r *askedReader) Read(p []byte) (int, error) {
	most := max(r.come, 64<<10)
	if r.come%(1<<20) == 0 {
		most = 64 << 10
	}
	if len(p) > most {
		r.t.Errorf("behind %d bytes it is asked for %d", r.come, len(p))
	}
	n := min(len(p), r.left)
	r.come += n
	r.left -= n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Values around every threshold, of known and unknown size, come back by every
// kind of read, before and after reopening.
func TestPutReader(t *testing.T) {
	disk := simdisk.New()
	sizes := []int{0, 1, testBlobSize - 1, testBlobSize, testBlobSize + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 77}
	db := open(t, "", blobOptions(disk))
	for _, size := range sizes {
		value := randomBytes(size)
		if err := putReader(db, fmt.Sprint("known", size), bytes.NewReader(value), int64(size)); err != nil {
			t.Fatal(err)
		}
		if err := putReader(db, fmt.Sprint("unknown", size), iotest.HalfReader(bytes.NewReader(value)), -1); err != nil {
			t.Fatal(err)
		}
	}
	for run := range 2 {
		for _, size := range sizes {
			for _, kind := range []string{"known", "unknown"} {
				checkValue(t, db, fmt.Sprint(kind, size), randomBytes(size))
			}
		}
		if run == 0 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = open(t, "", blobOptions(disk))
		}
	}
	ro := open(t, "", &Options{FS: disk, ReadOnly: true})
	checkValue(t, ro, "known3145805", randomBytes(3<<20+77))
}

func checkValue(t *testing.T, db *DB, key string, want []byte) {
	t.Helper()
	got, err := db.Get(nil, []byte(key))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Get(%q): %d bytes, %v", key, len(got), err)
	}
	err = db.View([]byte(key), func(value []byte) error {
		if !bytes.Equal(value, want) {
			t.Errorf("View(%q): wrong bytes", key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := db.Value([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if v.Size() != int64(len(want)) {
		t.Errorf("%q: size %d", key, v.Size())
	}
	if err := iotest.TestReader(io.NewSectionReader(v, 0, v.Size()), want); err != nil && len(want) < 1<<16 {
		t.Errorf("%q: %v", key, err)
	}
	if _, err := v.Seek(-int64(len(want)/2), io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	var tail bytes.Buffer
	if n, err := io.Copy(&tail, v); err != nil || !bytes.Equal(tail.Bytes(), want[len(want)-len(want)/2:]) {
		t.Errorf("%q: copied %d bytes, %v", key, n, err)
	}
}

// silentReader never has anything to say.
type silentReader struct{}

func (silentReader) Read([]byte) (int, error) { return 0, nil }

// A put that fails leaves no value and no file, whatever fails.
func TestPutReaderFails(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	mustPut(t, db, "k", "old")
	before := fmt.Sprint(disk.Names())
	value := randomBytes(5 * testBlobSize)
	broken := errors.New("broken pipe")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		r    io.Reader
		size int64
		o    PutOptions
		want error
	}{
		"reader fails":       {r: io.MultiReader(bytes.NewReader(value), iotest.ErrReader(broken)), size: -1, want: broken},
		"reader fails early": {r: iotest.ErrReader(broken), size: 10, want: broken},
		"too short":          {r: bytes.NewReader(value), size: int64(len(value)) + 1, want: ErrSize},
		"too long":           {r: bytes.NewReader(value), size: int64(len(value)) - 1, want: ErrSize},
		"small too short":    {r: strings.NewReader("abc"), size: 4, want: ErrSize},
		"small too long":     {r: strings.NewReader("abc"), size: 2, want: ErrSize},
		"no progress":        {r: silentReader{}, size: -1, want: io.ErrNoProgress},
		"cancelled":          {ctx: cancelled, r: bytes.NewReader(value), size: -1, want: context.Canceled},
		"too large":          {r: bytes.NewReader(value), size: MaxValue + 1, want: ErrValueTooLarge},
		"condition":          {r: bytes.NewReader(value), size: -1, o: PutOptions{IfAbsent: true}, want: ErrPrecondition},
		"metadata":           {r: bytes.NewReader(value), size: -1, o: PutOptions{Metadata: &Metadata{ContentType: string(make([]byte, 1<<16))}}},
	} {
		if test.ctx == nil {
			test.ctx = context.Background()
		}
		_, err := db.PutReader(test.ctx, []byte("k"), test.r, test.size, &test.o)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if now := fmt.Sprint(disk.Names()); now != before {
			t.Errorf("%s left %v", name, now)
		}
	}
	mustGet(t, db, "k", "old")
}

// A blob whose record was deleted and compacted away is unlinked once nobody
// holds it; one that is held stays readable.
func TestBlobGoes(t *testing.T) {
	disk := simdisk.New()
	value := randomBytes(2 * testBlobSize)
	db := open(t, "", blobOptions(disk))
	for _, key := range []string{"gone", "kept"} {
		if err := putReader(db, key, bytes.NewReader(value), -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a run that deletes, and one whose first write folds
		db = open(t, "", blobOptions(disk))
		mustPut(t, db, "another", "x")
		db.Delete([]byte("gone"), nil)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	db = open(t, "", blobOptions(disk))
	v, err := db.Value([]byte("kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	mustPut(t, db, "another", "y")
	for deadline := time.Now().Add(5 * time.Second); len(names(disk, ".blob")) > 1; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", names(disk, ".blob"))
		}
	}
	if b, err := v.Bytes(); err != nil || !bytes.Equal(b, value) {
		t.Error(err)
	}
	checkValue(t, db, "kept", value)
	mustBeGone(t, db, "gone")
}

// Slices of blobs stay valid as promised when many others are opened meanwhile.
func TestBlobSlicesAreHeld(t *testing.T) {
	db := open(t, t.TempDir(), &Options{BlobSize: minBlobSize, Sync: SyncNever})
	key := func(i int) []byte { return fmt.Appendf(nil, "%03d", i) }
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 2*minBlobSize) }
	const n = openBlobs + 50
	for i := range n {
		if err := db.Put(key(i), value(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	openOthers := func() {
		for i := 1; i < n; i++ {
			if got, err := db.Get(nil, key(i)); err != nil || !bytes.Equal(got, value(i)) {
				t.Fatal(err)
			}
		}
		for range 5 {
			runtime.GC()
		}
	}
	check := func(b []byte) error {
		openOthers()
		if !bytes.Equal(b, value(0)) {
			t.Error("the value changed")
		}
		return nil
	}
	if err := errors.Join(db.View(key(0), check), s.View(key(0), check)); err != nil {
		t.Error(err)
	}
	for _, e := range s.All() {
		b, err := e.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		check(b)
		break
	}
}

// A crash between a blob and its record leaves a file that no record names,
// and the next Open removes it.
func TestStrayBlobs(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	mustPut(t, db, "k", "v")
	var image *simdisk.Disk
	disk.OnOp(func(n int, op string) {
		if list := names(disk, ".blob"); len(list) == 1 && !segment.IsTempName(list[0]) && image == nil {
			image = disk.Clone()
		}
	})
	if err := putReader(db, "large", bytes.NewReader(randomBytes(2*testBlobSize)), -1); err != nil {
		t.Fatal(err)
	}
	disk.OnOp(nil)
	db = open(t, "", blobOptions(image))
	mustBeGone(t, db, "large")
	if left := names(image, ".blob"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := putReader(db, "large", bytes.NewReader(randomBytes(2*testBlobSize)), -1); err != nil {
		t.Fatal(err)
	}
	checkValue(t, db, "large", randomBytes(2*testBlobSize))
}

// A blob that is damaged or missing is an error that names its file.
func TestDamagedBlob(t *testing.T) {
	value := randomBytes(3 << 20)
	for name, spoil := range map[string]func(*simdisk.Disk, string, []byte){
		"missing": func(d *simdisk.Disk, file string, b []byte) { d.Remove(file) },
		"cut":     func(d *simdisk.Disk, file string, b []byte) { d.WriteFile(file, b[:len(b)-1]) },
		"header":  func(d *simdisk.Disk, file string, b []byte) { b[20] ^= 1; d.WriteFile(file, b) },
		"value":   func(d *simdisk.Disk, file string, b []byte) { b[4096+1<<20] ^= 1; d.WriteFile(file, b) },
		"table":   func(d *simdisk.Disk, file string, b []byte) { b[len(b)-1] ^= 1; d.WriteFile(file, b) },
	} {
		disk := simdisk.New()
		db := open(t, "", blobOptions(disk))
		if err := putReader(db, "k", bytes.NewReader(value), -1); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		file := names(disk, ".blob")[0]
		data, _ := disk.ReadFile(file)
		spoil(disk, file, data)
		db = open(t, "", blobOptions(disk))
		_, err := db.Get(nil, []byte("k"))
		var damage *CorruptError
		if !errors.As(err, &damage) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
		v, err := db.Value([]byte("k"))
		if name != "value" {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			continue
		}
		if _, err := v.Range(0, 1<<20); err != nil {
			t.Errorf("a range of a chunk that is whole: %v", err)
		}
		if _, err := v.Range(1<<20, 1); !errors.As(err, &damage) {
			t.Errorf("a range of a damaged chunk: %v", err)
		}
		v.Close()
	}
}

// View notices a damaged blob, first and later, and so does a Value after it:
// that the record which names the blob was verified says nothing of the blob.
// A snapshot of a writer holds its blobs, so one that is missing is damage.
func TestDamagedBlobInView(t *testing.T) {
	for _, missing := range []bool{false, true} {
		disk := simdisk.New()
		db := open(t, "", blobOptions(disk))
		if err := putReader(db, "k", bytes.NewReader(randomBytes(2*testBlobSize)), -1); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		file := names(disk, ".blob")[0]
		data, _ := disk.ReadFile(file)
		data[5000] ^= 1
		if disk.WriteFile(file, data); missing {
			disk.Remove(file)
		}
		db = open(t, "", blobOptions(disk))
		snap, err := db.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func() error{
			"View":          func() error { return db.View([]byte("k"), func([]byte) error { return nil }) },
			"Value":         func() error { return readValue(db, "k") },
			"Snapshot.View": func() error { return snap.View([]byte("k"), func([]byte) error { return nil }) },
		} {
			for range 3 {
				var damage *CorruptError
				if err := read(); !errors.As(err, &damage) || !strings.Contains(err.Error(), file) {
					t.Errorf("missing %v: %s: %v", missing, name, err)
				}
			}
		}
		snap.Close()
	}
}

func readValue(db *DB, key string) error {
	v, err := db.Value([]byte(key))
	if err != nil {
		return err
	}
	defer v.Close()
	_, err = v.Bytes()
	return err
}

// A damaged reference to a blob is refused by Open, which leaves the blob that
// it no longer names where it is.
func TestDamagedReference(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", blobOptions(disk))
	if err := putReader(db, "k", bytes.NewReader(randomBytes(2*testBlobSize)), 2*testBlobSize); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	seg := names(disk, ".seg")[0]
	data, _ := disk.ReadFile(seg)
	data[segment.HeaderSize+48+len("k")] ^= 4 // the number of the blob
	disk.WriteFile(seg, data)
	before := listing(disk)
	var damage *CorruptError
	if _, err := Open("", blobOptions(disk)); !errors.As(err, &damage) {
		t.Error(err)
	}
	if listing(disk) != before {
		t.Error("a refused open changed the directory")
	}
}

// stallingReader blocks at its end until it is let go.
type stallingReader struct {
	io.Reader
	stalled, letGo chan struct{}
}

func (r *stallingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		close(r.stalled)
		<-r.letGo
	}
	return n, err
}

// A put that is still reading when its store is closed fails, and does not
// touch the files of the run that follows, which may have the same names.
func TestPutOutlivesClose(t *testing.T) {
	disk := simdisk.New()
	old := open(t, "", blobOptions(disk))
	r := &stallingReader{bytes.NewReader(randomBytes(2 * testBlobSize)), make(chan struct{}), make(chan struct{})}
	failed := make(chan error)
	go func() { failed <- putReader(old, "old", r, 2*testBlobSize) }()
	<-r.stalled
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	db := open(t, "", blobOptions(disk))
	value := randomBytes(3 * testBlobSize)
	if err := putReader(db, "new", bytes.NewReader(value), -1); err != nil {
		t.Fatal(err)
	}
	close(r.letGo)
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	checkValue(t, db, "new", value)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	checkValue(t, open(t, "", blobOptions(disk)), "new", value)
}

// Of many that want to be the first to put a key exactly one is.
func TestIfAbsent(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	var won, lost atomic.Int64
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			err := db.Put([]byte("k"), fmt.Append(nil, i), &PutOptions{IfAbsent: true})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, ErrPrecondition):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 999 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
}

// Conditions are judged against what came before in the same group, also when
// a key went and came back with the same value.
func TestConditions(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	put := func(o *PutOptions) (Version, error) {
		r, err := db.PutReader(context.Background(), []byte("k"), strings.NewReader("value"), 5, o)
		return r.Version, err
	}
	first, err := put(&PutOptions{IfAbsent: true})
	if err != nil {
		t.Fatal(err)
	}
	second, err := put(&PutOptions{IfMatch: &first})
	if err != nil || second == first {
		t.Fatal(err)
	}
	refused := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, ErrPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = put(&PutOptions{IfMatch: &first})
	refused("put with an old version", err)
	refused("delete with an old version", db.Delete([]byte("k"), &PutOptions{IfMatch: &first}))
	refused("delete if absent", db.Delete([]byte("k"), &PutOptions{IfAbsent: true}))
	refused("match of an absent key", db.Put([]byte("absent"), nil, &PutOptions{IfMatch: &first}))

	var b Batch
	b.RequireVersion([]byte("k"), second)
	b.RequireAbsent([]byte("new"))
	b.Delete([]byte("k"))
	b.Put([]byte("new"), []byte("1"), nil)
	if err := db.Apply(&b, nil); err != nil {
		t.Fatal(err)
	}
	refused("the same batch again", db.Apply(&b, nil))
	var conditionsOnly Batch
	conditionsOnly.RequireAbsent([]byte("new"))
	refused("conditions without operations", db.Apply(&conditionsOnly, nil))
	mustGet(t, db, "new", "1")
	mustBeGone(t, db, "k")
}

// A handle that is dropped without Close is reported with the place where it
// was made, and what it gave out stays readable.
func TestLeakedHandle(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	mustPut(t, db, "k", "value")
	value := leak(t, db)
	for deadline := time.Now().Add(5 * time.Second); ; runtime.GC() {
		list := db.Stats().Handles
		if len(list) == 1 && list[0].Leaked {
			if !strings.Contains(list[0].Site, "blob_test.go") || list[0].Key != "k" {
				t.Errorf("%+v", list[0])
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", list)
		}
	}
	if string(value) != "value" {
		t.Errorf("%q", value)
	}
}

//go:noinline
func leak(t *testing.T, db *DB) []byte {
	v, err := db.Value([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
