package fuzz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// fewFiles is a closed store with a few files of every kind, and so few of them
// that every subset can be tried. Each run leaves one segment and one blob.
func fewFiles(t testing.TB, runs int) victim {
	v := victim{disk: simdisk.New(), want: make(map[string]string)}
	for run := range runs {
		v.addRun(t, run)
	}
	return v
}

func (v victim) addRun(t testing.TB, run int) {
	store, err := db.Open("", v.options())
	check(t, err)
	for i := range 5 {
		v.put(t, store, fmt.Sprintf("key %d", i+2*run), strings.Repeat(fmt.Sprintf("run %d value %d ", run, i), 20))
	}
	v.put(t, store, fmt.Sprintf("blob %d", run), strings.Repeat(fmt.Sprint("blob ", run), 700))
	gone := fmt.Sprintf("key %d", 3+2*run)
	check(t, store.Delete([]byte(gone), nil))
	delete(v.want, gone)
	check(t, store.Close())
}

// TestBadRandom promises that random bytes under the name of any file, also of
// one that was not there, are an error or do not matter, and that a refused
// Open changes nothing.
func TestBadRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for kind, p := range victims(t) {
		names := append(p.disk.Names(),
			segment.ID(1<<20).FileName(), segment.ID(1<<20).BlobName(), segment.ManifestName(1<<20),
			segment.TempName(segment.ManifestName(1<<20)), segment.TempName(segment.ID(1).BlobName()), "README")
		for _, name := range names {
			for _, size := range []int{0, 1, 63, 64, 65, 200, 512, 4096, 10_000} {
				other := victim{disk: p.disk.Clone(), want: p.want, hurt: []place{{name, int64(size)}}}
				b := make([]byte, size)
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				other.disk.WriteFile(name, b)
				refused, err := other.judge()
				if err != nil {
					t.Errorf("%s: %d random bytes as %s: %v", kind, size, name, err)
				}
				if must := mustRefuse(p, name); refused != must && (must || filepath.Ext(name) != ".blob") {
					t.Errorf("%s: %d random bytes as %s: refused %v", kind, size, name, refused)
				}
			}
		}
	}
}

// mustRefuse reports whether no store can be opened when this file is nonsense.
func mustRefuse(p *past, name string) bool {
	if _, ok := segment.ParseManifestName(name); ok {
		return name >= newestManifest(p.disk)
	}
	return filepath.Ext(name) == ".seg" && slices.Contains(p.disk.Names(), name) && !isSpare(p.disk, name)
}

// TestBadNewer promises that files of a newer format, or with features that a
// reader must know, are refused with ErrNewer and left alone, and that features
// it need not know do not matter.
func TestBadNewer(t *testing.T) {
	for kind, p := range victims(t) {
		for _, name := range append(p.disk.Names(), "stray") {
			if name == segment.LockName || segment.IsTempName(name) {
				continue // without a header
			}
			for what, c := range map[string]struct {
				off   int
				newer bool
			}{
				"version": {4, false}, "least version": {6, true},
				"compatible feature": {8, false}, "incompatible feature": {12, true},
			} {
				other := p.withHeader(name, func(header []byte) { header[c.off+1] = 0x7f })
				if err := other.judgeNewer(name, c.newer && counts(p, name)); err != nil {
					t.Errorf("%s: %s of %s: %v", kind, what, name, err)
				}
			}
		}
	}
}

// counts reports whether anybody looks at a file: nobody does at the older
// manifest.
func counts(p *past, name string) bool {
	_, isManifest := segment.ParseManifestName(name)
	return !isManifest || name == newestManifest(p.disk)
}

// withHeader returns the same store with one header changed and its checksums
// put right. A stray is a segment that no manifest names.
func (p *past) withHeader(name string, change func(header []byte)) victim {
	if name == "stray" {
		v := victim{disk: p.disk.Clone(), want: p.want}
		h, _ := segment.ReadHeader(v.disk, 1)
		h = segment.Header{Magic: segment.MagicSegment, Store: h.Store, File: 1 << 20}
		header := segment.AppendHeader(nil, h)
		change(header)
		sumHeader(header)
		v.disk.WriteFile(segment.ID(1<<20).FileName(), header)
		return v
	}
	return p.damaged(name, func(b []byte) []byte {
		if _, ok := segment.ParseManifestName(name); ok {
			for _, image := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
				change(image)
				repairManifest(image)
			}
			return b
		}
		change(b)
		sumHeader(b)
		return b
	})
}

func sumHeader(b []byte) { binary.LittleEndian.PutUint64(b[56:], xxhash.Sum64(b[:56])) }

// judgeNewer wants ErrNewer from whoever looks at the file, of a blob from
// those who read its value.
func (v victim) judgeNewer(name string, newer bool) error {
	if !newer || filepath.Ext(name) != ".blob" {
		refused, err := v.judge()
		if err == nil && refused != newer {
			err = fmt.Errorf("refused %v", refused)
		}
		if err == nil && newer {
			_, err = db.Open("", v.options())
			return wantNewer(err)
		}
		return err
	}
	store, err := db.Open("", v.options())
	if err != nil {
		return err
	}
	defer store.Close()
	errs := 0
	for key, want := range v.want {
		b, err := store.Get(nil, []byte(key))
		if err == nil {
			err = same(b, want)
		} else if errs++; wantNewer(err) == nil {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if errs != 1 {
		return fmt.Errorf("%d values could not be read", errs)
	}
	return nil
}

func wantNewer(err error) error {
	if !errors.Is(err, db.ErrNewer) {
		return fmt.Errorf("%v instead of ErrNewer", err)
	}
	return nil
}

// TestBadNewerRecord promises the same for records of a kind or with a flag of
// a newer version, in a segment that its writer has not sealed.
func TestBadNewerRecord(t *testing.T) {
	p := newPast(t, false)
	id, _ := segment.ParseFileName(p.active)
	h, err := segment.ReadHeader(p.disk, id)
	check(t, err)
	for _, at := range []int{0, 1, len(p.lengths) - 2} {
		off := p.lengths[at].length
		for what, change := range map[string]func(record []byte){
			"kind": func(record []byte) { record[28] = 77 },
			"flag": func(record []byte) { record[29] |= 0x80 },
		} {
			other := p.damaged(p.active, func(b []byte) []byte {
				change(b[off:])
				repairSums(b, h.Salt)
				return b
			})
			if err := other.judgeNewer(p.active, true); err != nil {
				t.Errorf("%s of the record at %d: %v", what, off, err)
			}
			opts := other.options()
			opts.ReadOnly = true
			_, err := db.Open("", opts)
			if err := wantNewer(err); err != nil {
				t.Errorf("%s of the record at %d, read-only: %v", what, off, err)
			}
		}
	}
}

// TestBadNumbers promises that a manifest with right checksums that gives out
// sequence numbers anew is refused: a reader would wait for the records that
// have them.
func TestBadNumbers(t *testing.T) {
	v := fewFiles(t, 2)
	for _, next := range []uint64{0, 1, 13, 1<<63 + 1, 1<<64 - 1} {
		other := v.damaged(newestManifest(v.disk), func(b []byte) []byte {
			for _, image := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
				binary.LittleEndian.PutUint64(image[segment.HeaderSize+16:], next)
				repairManifest(image)
			}
			return b
		})
		if refused, err := other.judge(); !refused || err != nil {
			t.Errorf("next sequence number %d: refused %v, %v", next, refused, err)
		}
	}
	p := newPast(t, false)
	id, _ := segment.ParseFileName(p.active)
	h, err := segment.ReadHeader(p.disk, id)
	check(t, err)
	other := p.damaged(p.active, func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[p.lengths[1].length+40:], 1<<64-1)
		repairSums(b, h.Salt)
		return b
	})
	if refused, err := other.judge(); !refused || err != nil {
		t.Errorf("record with the last number there is: refused %v, %v", refused, err)
	}
}

// TestBadLock promises that a store which another writer has open is refused
// with ErrLocked and left alone, whatever is in the lock file, and can be read.
func TestBadLock(t *testing.T) {
	for _, content := range []string{"", "4711\n", strings.Repeat("\x00", 5000)} {
		dir := t.TempDir()
		first, err := db.Open(dir, nil)
		check(t, err)
		check(t, first.Put([]byte("key"), []byte("value"), nil))
		check(t, first.Close())
		owner, err := db.Open(dir, nil) // and writes nothing
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, segment.LockName), []byte(content), 0o600))
		before := dirContents(t, dir)
		if _, err := db.Open(dir, nil); !errors.Is(err, db.ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("second open: %v", err)
		}
		reader, err := db.Open(dir, &db.Options{ReadOnly: true})
		check(t, err)
		check(t, reader.Close())
		if !maps.Equal(before, dirContents(t, dir)) {
			t.Error("an open beside the writer has changed something")
		}
		check(t, owner.Close())
	}
}

func dirContents(t *testing.T, dir string) map[string]string {
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		check(t, err)
		files[e.Name()] = string(b)
	}
	return files
}

// TestBadHalfCopied promises that a store of which some files are missing says
// so, or has everything. Method: every subset of the files. A directory with
// neither manifest, segment nor blob is an empty store.
func TestBadHalfCopied(t *testing.T) {
	v := fewFiles(t, 3)
	names := v.disk.Names()
	t.Log(names)
	for subset := range 1 << len(names) {
		other := victim{disk: v.disk.Clone(), want: v.want}
		left := 0
		for i, name := range names {
			if subset>>i&1 == 0 {
				other.disk.Remove(name)
			} else if name != segment.LockName {
				left++
			}
		}
		if left == 0 {
			other.want = nil
		}
		if refused, err := other.afresh().judge(); err != nil {
			t.Fatalf("with only %v (refused %v): %v", other.disk.Names(), refused, err)
		}
	}
}

// afresh is the same store on a disk that has counted nothing yet.
func (v victim) afresh() victim {
	v.disk = v.disk.Clone()
	return v
}

// TestBadMixed promises that files of two stores, or of one store and its older
// backup, are never taken for one: whatever is mixed, the store shows one of
// the two, or names what does not fit. Method: every name is taken from the one
// or the other, in every combination; a name that the chosen one does not have
// is missing, or stays from the other.
func TestBadMixed(t *testing.T) {
	old := fewFiles(t, 2)
	later := victim{disk: old.disk.Clone(), want: maps.Clone(old.want)}
	later.addRun(t, 2)
	for what, pair := range map[string][2]victim{
		"another store": {later, fewFiles(t, 2)},
		"older backup":  {later, old},
	} {
		names := union(pair[0].disk.Names(), pair[1].disk.Names())
		t.Log(what, names)
		refused := 0
		step := 1
		if underRace {
			step = 31
		}
		for choice := 0; choice < 1<<len(names); choice += step {
			for _, remove := range []bool{true, false} {
				disk := mixed(pair, names, choice, remove)
				no, err := judgeEither(disk, pair)
				if err != nil {
					t.Fatalf("%s, choice %0*b of %v, removed %v: %v", what, len(names), choice, names, remove, err)
				}
				if no {
					refused++
				}
			}
		}
		t.Logf("%s: %d of %d refused", what, refused, 2<<len(names))
	}
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(name string) bool { return name == segment.LockName })
}

// mixed takes each file from the store that its bit of choice says.
func mixed(pair [2]victim, names []string, choice int, remove bool) *simdisk.Disk {
	disk := simdisk.New()
	for i, name := range names {
		from := choice >> i & 1
		b, err := pair[from].disk.ReadFile(name)
		if err != nil && !remove {
			b, err = pair[1-from].disk.ReadFile(name)
		}
		if err == nil {
			disk.WriteFile(name, b)
		}
	}
	return disk
}

// judgeEither wants the store to be one of two, if it can be opened.
func judgeEither(disk *simdisk.Disk, pair [2]victim) (refused bool, err error) {
	var errs []error
	for _, v := range pair {
		refused, err := victim{disk: disk.Clone(), want: v.want}.judge()
		if err == nil {
			return refused, nil
		}
		errs = append(errs, err)
	}
	if len(union(disk.Names(), nil)) == 0 {
		return victim{disk: disk}.judge()
	}
	return false, errors.Join(errs...)
}
