package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// victim is a store that damage is done to. Every byte of it that matters was
// proven durable, so nothing may be taken for a torn tail.
type victim struct {
	disk *simdisk.Disk
	want map[string]string
}

// victims are a store that was closed, one whose process was killed after it
// had become idle, and one whose segments have hints, so that Open does not
// notice what is wrong with a record.
func victims(t *testing.T) map[string]victim {
	closed, killed := newVictim(t, true), newVictim(t, false)
	return map[string]victim{"closed": closed, "killed": killed, "hinted": newVictim(t, true).hinted(t)}
}

// hinted returns the same store with a hint for each segment. All of them are
// sealed, so their length is that of the file.
func (v victim) hinted(t testing.TB) victim {
	disk := v.disk.Clone()
	for _, name := range disk.Names() {
		id, ok := segment.ParseFileName(name)
		if !ok {
			continue
		}
		h, err := segment.ReadHeader(disk, id)
		check(t, err)
		seg, err := segment.Open(disk, id, h.Store, segment.WholeFile, 0)
		check(t, err)
		var tally segment.Tally
		for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
			check(t, err)
			tally.Add(&r)
		}
		check(t, addHint(disk, seg, tally))
	}
	return victim{disk.Clone(), v.want}
}

func newVictim(t testing.TB, closed bool) victim {
	v := victim{simdisk.New(), make(map[string]string)}
	for run := range 3 {
		v.run(t, run, 40, closed || run < 2)
	}
	v.disk = v.disk.Clone()
	return v
}

// smallVictim has one segment.
func smallVictim(t testing.TB) victim {
	v := victim{simdisk.New(), make(map[string]string)}
	v.run(t, 0, 6, true)
	return v
}

// run opens the store and writes so much.
func (v victim) run(t testing.TB, run, writes int, closed bool) {
	store, err := db.Open("", v.options())
	check(t, err)
	for i := range writes {
		v.write(t, store, run, i)
	}
	v.disk.Advance(watermark)
	if closed {
		check(t, store.Close())
	}
}

func (v victim) options() *db.Options { return &db.Options{FS: v.disk, SegmentSize: 4 << 10} }

// write does the i-th write of a run.
func (v victim) write(t testing.TB, store *db.DB, run, i int) {
	key := fmt.Sprintf("key %d", (i*7+run*11)%50)
	if i%5 == 4 {
		if err := store.Delete([]byte(key), nil); !errors.Is(err, db.ErrNotFound) {
			check(t, err)
		}
		delete(v.want, key)
		return
	}
	value := strings.Repeat(fmt.Sprintf("run %d value %d ", run, i), i*i%37)
	o := &db.PutOptions{}
	if i%3 == 0 {
		o.Metadata = &db.Metadata{ContentType: "text/plain", User: []db.Pair{{Name: "i", Value: fmt.Sprint(i)}}}
	}
	check(t, store.Put([]byte(key), []byte(value), o))
	v.want[key] = value
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// damaged returns the same store with one file changed.
func (v victim) damaged(name string, change func(b []byte) []byte) victim {
	disk := v.disk.Clone()
	b, err := disk.ReadFile(name)
	if err != nil {
		panic(err)
	}
	disk.WriteFile(name, change(b))
	return victim{disk, v.want}
}

// judge opens the store and reads everything in every way. It returns an error
// unless each answer is right or names the damaged file. refused says that
// Open did not want to.
func (v victim) judge() (refused bool, err error) {
	for _, readOnly := range []bool{true, false} {
		before := v.files()
		opts := v.options()
		opts.ReadOnly = readOnly
		store, err := db.Open("", opts)
		if err != nil {
			if !maps.Equal(before, v.files()) {
				return true, fmt.Errorf("refused, but changed something: %w", err)
			}
			if err := explicit(err); err != nil {
				return true, err
			}
			refused = true
			continue
		}
		if err := errors.Join(v.readAll(store), store.Close()); err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// files are the contents of all files but the lock, which Open may create.
func (v victim) files() map[string]string {
	list := make(map[string]string)
	for _, name := range v.disk.Names() {
		if b, err := v.disk.ReadFile(name); err == nil && name != segment.LockName {
			list[name] = string(b)
		}
	}
	return list
}

// explicit returns nil for an error that says which file is damaged or too new.
func explicit(err error) error {
	var damage *db.CorruptError
	if errors.As(err, &damage) && damage.Path != "" && damage.Reason != "" {
		return nil
	}
	if errors.Is(err, db.ErrNewer) && strings.Contains(err.Error(), "simdisk/") {
		return nil
	}
	return fmt.Errorf("not explicit: %w", err)
}

// readAll reads all keys by Get, View and a snapshot.
func (v victim) readAll(store *db.DB) error {
	for key, want := range v.want {
		got, err := store.Get(nil, []byte(key))
		if err := judge(string(got), want, err); err != nil {
			return fmt.Errorf("Get %q: %w", key, err)
		}
		err = store.View([]byte(key), func(b []byte) error { return judge(string(b), want, nil) })
		if err != nil && explicit(err) != nil {
			return fmt.Errorf("View %q: %w", key, err)
		}
	}
	if n := store.Stats().Keys; n != len(v.want) {
		return fmt.Errorf("%d keys, should be %d", n, len(v.want))
	}
	snap, err := store.Snapshot()
	if err != nil {
		return explicit(err) // of a key that Open did not read
	}
	return errors.Join(v.readEntries(snap.All()), snap.Close())
}

func (v victim) readEntries(entries iter.Seq2[[]byte, db.Entry]) error {
	left := maps.Clone(v.want)
	for key, e := range entries {
		if e.Err() != nil {
			return explicit(e.Err())
		}
		got, err := e.Bytes()
		if err := judge(string(got), left[string(key)], err); err != nil {
			return fmt.Errorf("entry %q: %w", key, err)
		}
		delete(left, string(key))
	}
	if len(left) > 0 {
		return fmt.Errorf("the iteration lacks %v", slices.Collect(maps.Keys(left)))
	}
	return nil
}

func judge(got, want string, err error) error {
	if err != nil {
		return explicit(err)
	}
	if got != want {
		return fmt.Errorf("wrong value %.40q of %d bytes, should be %.40q", got, len(got), want)
	}
	return nil
}

// TestDamageBits promises that one flipped bit never makes a wrong answer.
// Method: every bit of every file of a small store, or a sample of them, is
// flipped; then everything is read.
func TestDamageBits(t *testing.T) {
	stride := 83
	if os.Getenv("CROWFLY_FULL") != "" {
		stride = 1
	} else if underRace {
		stride *= 10
	}
	for kind, v := range victims(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, name := range v.disk.Names() {
				t.Run(name, func(t *testing.T) { flipBits(t, v, name, stride) })
			}
		})
	}
}

func flipBits(t *testing.T, v victim, name string, stride int) {
	t.Parallel()
	b, err := v.disk.ReadFile(name)
	check(t, err)
	for bit := 0; bit < 8*len(b); bit += stride {
		flipped := v.damaged(name, func(b []byte) []byte {
			b[bit/8] ^= 1 << (bit % 8)
			return b
		})
		if _, err := flipped.judge(); err != nil {
			t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
	}
}

// TestDamageLengths promises the same for files that were cut off, or have
// something behind their end. A segment that nobody sealed can't be told from
// a shorter one, so the store was closed.
func TestDamageLengths(t *testing.T) {
	v := newVictim(t, true)
	cutFiles(t, v)
	cutFiles(t, v.hinted(t))
}

func cutFiles(t *testing.T, v victim) {
	stride := 41
	if underRace {
		stride *= 10
	}
	for _, name := range v.disk.Names() {
		b, err := v.disk.ReadFile(name)
		check(t, err)
		for n := 0; n < len(b)+1000; n += stride {
			other := v.damaged(name, func(b []byte) []byte {
				return append(b, bytes.Repeat([]byte{0xa5}, 1000)...)[:n]
			})
			if _, err := other.judge(); err != nil {
				t.Fatalf("%s at length %d of %d: %v", name, n, len(b), err)
			}
		}
	}
}

// TestDamageSectors promises the same for sectors that read as zeros, or as
// another sector of the same file: a write that was lost or misdirected.
func TestDamageSectors(t *testing.T) {
	closed := newVictim(t, true)
	for kind, v := range map[string]victim{"closed": closed, "hinted": closed.hinted(t)} {
		for _, name := range v.disk.Names() {
			t.Run(kind+"/"+name, func(t *testing.T) { loseSectors(t, v, name) })
		}
	}
}

func loseSectors(t *testing.T, v victim, name string) {
	t.Parallel()
	const sector = 512
	b, err := v.disk.ReadFile(name)
	check(t, err)
	for to := 0; to < len(b); to += sector {
		for from := -sector; from < len(b); from += sector {
			other := v.damaged(name, func(b []byte) []byte {
				lost := b[to:min(to+sector, len(b))]
				if from < 0 {
					clear(lost)
				} else {
					copy(lost, bytes.Clone(b[from:]))
				}
				return b
			})
			if _, err := other.judge(); err != nil {
				t.Fatalf("sector at %d as that at %d: %v", to, from, err)
			}
		}
	}
}

// TestDamageFiles promises that files that are missing, exchanged, of another
// store or from another time are noticed, and that only one damage heals: of
// the two images in a manifest.
func TestDamageFiles(t *testing.T) {
	for kind, v := range victims(t) {
		other := newVictim(t, true)
		for _, c := range fileDamages(v, other) {
			disk := v.disk.Clone()
			c.do(disk)
			refused, err := victim{disk, v.want}.judge()
			if err != nil {
				t.Errorf("%s, %s: %v", kind, c.name, err)
			}
			if refused != c.refuse && (c.refuse || c.heals) {
				t.Errorf("%s, %s: refused %v", kind, c.name, refused)
			}
		}
	}
}

type fileDamage struct {
	name   string
	refuse bool // Open has to
	heals  bool // Open must not
	do     func(disk *simdisk.Disk)
}

func fileDamages(v, other victim) (list []fileDamage) {
	var previous string
	for _, name := range v.disk.Names() {
		isSegment := filepath.Ext(name) == ".seg"
		b, _ := v.disk.ReadFile(name)
		spare := isSegment && len(b) == segment.HeaderSize
		_, isHint := segment.ParseHintName(name)
		list = append(list, fileDamage{name: "without " + name, refuse: isSegment && !spare, heals: isHint, do: func(disk *simdisk.Disk) {
			disk.Remove(name)
		}})
		if isSegment && previous != "" {
			a, b := previous, name
			list = append(list, fileDamage{name: a + " and " + b + " exchanged", refuse: true, do: func(disk *simdisk.Disk) {
				exchange(disk, a, b)
			}})
		}
		if isSegment {
			previous = name
		}
		if foreign, err := other.disk.ReadFile(name); err == nil && name != segment.LockName {
			newest := isSegment || name == newestManifest(v.disk)
			list = append(list, fileDamage{name: name + " of another store", refuse: newest, heals: isHint, do: func(disk *simdisk.Disk) {
				disk.WriteFile(name, foreign)
			}})
		}
	}
	return append(list, manifestDamages(v)...)
}

func exchange(disk *simdisk.Disk, a, b string) {
	x, _ := disk.ReadFile(a)
	y, _ := disk.ReadFile(b)
	disk.WriteFile(a, y)
	disk.WriteFile(b, x)
}

func newestManifest(disk *simdisk.Disk) (newest string) {
	for _, name := range disk.Names() {
		if _, ok := segment.ParseManifestName(name); ok {
			newest = name
		}
	}
	return newest
}

func manifestDamages(v victim) []fileDamage {
	newest := newestManifest(v.disk)
	generation, _ := segment.ParseManifestName(newest)
	image, _ := v.disk.ReadFile(newest)
	half := len(image) / 2
	zero := func(from, to int) func(*simdisk.Disk) {
		return func(disk *simdisk.Disk) {
			b := slices.Clone(image)
			clear(b[from:to])
			disk.WriteFile(newest, b)
		}
	}
	return []fileDamage{
		{name: "first image of the manifest lost", heals: true, do: zero(0, half)},
		{name: "second image of the manifest lost", heals: true, do: zero(half, len(image))},
		{name: "both images of the manifest lost", refuse: true, do: zero(0, len(image))},
		{name: "manifest under the next name", refuse: true, do: func(disk *simdisk.Disk) {
			disk.WriteFile(segment.ManifestName(generation+1), image)
		}},
		{name: "no manifest", refuse: true, do: func(disk *simdisk.Disk) {
			for _, name := range disk.Names() {
				if _, ok := segment.ParseManifestName(name); ok {
					disk.Remove(name)
				}
			}
		}},
	}
}

// TestDamageSecondHistory promises that a file is not taken for one of the
// same name and store that has a history of its own: a store was copied, and
// both copies were written to.
func TestDamageSecondHistory(t *testing.T) {
	a := newVictim(t, true)
	b := victim{a.disk.Clone(), maps.Clone(a.want)}
	for run, v := range []victim{a, b} {
		store, err := db.Open("", v.options())
		check(t, err)
		for i := range 20 {
			v.write(t, store, 10+run, i)
		}
		check(t, store.Close())
	}
	for _, name := range a.disk.Names() {
		foreign, err := b.disk.ReadFile(name)
		if err != nil {
			continue
		}
		mixed := a.damaged(name, func([]byte) []byte { return foreign })
		if _, err := mixed.judge(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamageHintHistory promises that the hint of one history of a segment is
// not used for another, whose later keys it would hide. Method: a store was
// copied while it wrote; both copies seal the same file, at different lengths,
// and the shorter one's hint goes to the other.
func TestDamageHintHistory(t *testing.T) {
	late := victim{simdisk.New(), make(map[string]string)}
	store, err := db.Open("", &db.Options{FS: late.disk})
	check(t, err)
	write := func(from, to int) {
		for i := from; i < to; i++ {
			key := fmt.Sprintf("key %d", i)
			check(t, store.Put([]byte(key), []byte("value"), nil))
			late.want[key] = "value"
		}
		late.disk.Advance(watermark)
	}
	write(0, 20)
	early := victim{disk: late.disk.Clone()}
	write(10, 30)
	check(t, store.Close())

	store, err = db.Open("", &db.Options{FS: early.disk})
	check(t, err)
	check(t, store.Close())
	name := segment.ID(1).HintName()
	hint, err := early.hinted(t).disk.ReadFile(name)
	check(t, err)
	late.disk.WriteFile(name, hint)
	if refused, err := late.judge(); refused || err != nil {
		t.Errorf("refused %v, %v", refused, err)
	}
}

// TestDamageRecords promises that a record that was written to the place of
// another is not taken for it, though it is whole. Method: in a segment that
// nobody has sealed, so that its records are not counted, each record of one
// size takes the place of each other.
func TestDamageRecords(t *testing.T) {
	const records, size = 6, 64
	v := victim{simdisk.New(), make(map[string]string)}
	store, err := db.Open("", v.options())
	check(t, err)
	for i := range records {
		key, value := fmt.Sprintf("key %d", i), fmt.Sprintf("value %d", i)
		check(t, store.Put([]byte(key), []byte(value), nil))
		v.want[key] = value
	}
	v.disk.Advance(watermark)
	v.disk = v.disk.Clone()
	for to := range records {
		for from := range records {
			other := v.damaged(segment.ID(1).FileName(), func(b []byte) []byte {
				body := b[segment.HeaderSize:]
				copy(body[to*size:][:size], bytes.Clone(body[from*size:][:size]))
				return b
			})
			if refused, err := other.judge(); err != nil || refused != (from != to) {
				t.Errorf("record %d in the place of %d: refused %v, %v", from, to, refused, err)
			}
		}
	}
}
