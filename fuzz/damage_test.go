package fuzz

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// stride is how much of a sweep is left out: of so many cases one is tried.
// With CROWFLY_FULL none is left out.
func stride(t *testing.T, n int) int {
	if os.Getenv("CROWFLY_FULL") != "" {
		return 1
	}
	if underRace {
		n *= 10
	}
	return number(t, "CROWFLY_DAMAGE", n)
}

// sweep runs a test for every file of both victims.
func sweep(t *testing.T, test func(t *testing.T, p *past, name string, content []byte)) {
	for kind, p := range victims(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, name := range p.disk.Names() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					b, err := p.disk.ReadFile(name)
					check(t, err)
					test(t, p, name, b)
				})
			}
		})
	}
}

// TestDamageVictims promises that the victims have what damage can be done to.
func TestDamageVictims(t *testing.T) {
	for kind, p := range victims(t) {
		size, suffixes, kinds := 0, make(map[string]int), make(map[segment.Kind]int)
		for _, name := range p.disk.Names() {
			b, err := p.disk.ReadFile(name)
			check(t, err)
			size += len(b)
			suffixes[filepath.Ext(name)]++
			if id, ok := segment.ParseFileName(name); ok {
				countKinds(t, p.disk, id, kinds)
			}
		}
		t.Logf("%s: %d bytes in %d files %v, records %v", kind, size, len(p.disk.Names()), suffixes, kinds)
		if size < 48<<10 || size > 80<<10 || suffixes[".seg"] < 4 || suffixes[".blob"] < 2 || (p.active != "") != (kind == "killed") {
			t.Errorf("%s: %d bytes, files %v, active %q", kind, size, suffixes, p.active)
		}
		for k := segment.KindPut; k <= segment.KindWatermark; k++ {
			if kinds[k] == 0 {
				t.Errorf("%s: no record of kind %d", kind, k)
			}
		}
		if refused, err := p.judge(); err != nil || refused {
			t.Errorf("%s: refused %v, %v", kind, refused, err)
		}
	}
}

func countKinds(t *testing.T, disk *simdisk.Disk, id segment.ID, kinds map[segment.Kind]int) {
	h, err := segment.ReadHeader(disk, id)
	check(t, err)
	seg, err := segment.Open(disk, id, h.Store, segment.WholeFile, 0)
	check(t, err)
	for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
		check(t, err)
		kinds[r.Kind]++
	}
}

// TestDamageBits promises that one flipped bit never makes a wrong answer, and
// is never taken for a torn tail. Method: every bit of every file of a store,
// or a sample of them, is flipped; then everything is read. What earlier runs
// left is alike in both victims, so it is done to one.
func TestDamageBits(t *testing.T) {
	step := stride(t, 997)
	sweep(t, func(t *testing.T, p *past, name string, content []byte) {
		if p.active == "" && slices.Contains(p.earlier, name) {
			return
		}
		for bit := 0; bit < 8*len(content); bit += step {
			flipped := p.damaged(name, func(b []byte) []byte {
				b[bit/8] ^= 1 << (bit % 8)
				return b
			}).before(int64(bit / 8))
			if _, err := flipped.judge(); err != nil {
				t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
			}
		}
	})
}

// TestDamageLengths promises the same for files that were cut off anywhere, or
// have something behind their end. A segment that nobody has sealed can't be
// told from a shorter one: it shows what was in the store when it ended there.
func TestDamageLengths(t *testing.T) {
	step := stride(t, 199)
	sweep(t, func(t *testing.T, p *past, name string, content []byte) {
		behind := bytes.Repeat([]byte{0xa5}, 1000)
		for n := 0; n < len(content)+len(behind); n++ {
			if n%step != 0 && n != len(content)-1 {
				continue
			}
			other := p.damaged(name, func(b []byte) []byte { return append(b, behind...)[:n] }).before(int64(n))
			if name == p.active {
				other.want = p.whenShorter(n)
			}
			if _, err := other.judge(); err != nil {
				t.Fatalf("length %d of %d: %v", n, len(content), err)
			}
		}
	})
}

// whenShorter is what the store contained when the active segment ended at n.
func (p *past) whenShorter(n int) map[string]string {
	want := p.lengths[0].want
	for _, s := range p.lengths {
		if s.length <= n {
			want = s.want
		}
	}
	return want
}

// TestDamageFiles promises that files that are missing, exchanged, of another
// store or from another time are noticed, and that only one damage heals: of
// the two images in a manifest.
func TestDamageFiles(t *testing.T) {
	for kind, p := range victims(t) {
		v, other := p.victim, newVictim(t, true)
		for _, c := range fileDamages(v, other) {
			disk := v.disk.Clone()
			c.do(disk)
			refused, err := victim{disk, v.want, c.hurt}.judge()
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
	hurt   []place
	do     func(disk *simdisk.Disk)
}

func fileDamages(v, other victim) (list []fileDamage) {
	var previous string
	for _, name := range v.disk.Names() {
		isSegment := filepath.Ext(name) == ".seg"
		refuse := isSegment && !isSpare(v.disk, name)
		list = append(list, fileDamage{name: "without " + name, refuse: refuse, hurt: missing(name), do: func(disk *simdisk.Disk) {
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
			list = append(list, fileDamage{name: name + " of another store", refuse: newest, do: func(disk *simdisk.Disk) {
				disk.WriteFile(name, foreign)
			}})
		}
	}
	return append(list, manifestDamages(v)...)
}

// missing is where errors about a missing file point. Nobody knows the name of
// a manifest that is gone.
func missing(name string) []place {
	if _, ok := segment.ParseManifestName(name); ok {
		return nil
	}
	return []place{{name: name}}
}

func exchange(disk *simdisk.Disk, a, b string) {
	x, _ := disk.ReadFile(a)
	y, _ := disk.ReadFile(b)
	disk.WriteFile(a, y)
	disk.WriteFile(b, x)
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
	b := victim{disk: a.disk.Clone(), want: maps.Clone(a.want)}
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

// TestDamageRecords promises that a record that was written to the place of
// another is not taken for it, though it is whole. Method: in a segment that
// nobody has sealed, so that its records are not counted, each record of one
// size takes the place of each other.
func TestDamageRecords(t *testing.T) {
	const records, size = 6, 64
	v := victim{disk: simdisk.New(), want: make(map[string]string)}
	store, err := db.Open("", v.options())
	check(t, err)
	for i := range records {
		key, value := fmt.Sprintf("key %d", i), fmt.Sprintf("value %d", i)
		v.put(t, store, key, value)
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
