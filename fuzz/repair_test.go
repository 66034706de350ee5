package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
	dbcheck "github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// patient is a store before it is damaged, with every record in it.
type patient struct {
	victim
	records []written
}

// written is one record of the undamaged store.
type written struct {
	file     string
	from, to int64
	key      string
	seq      uint64
	value    string
	deleted  bool
	blob     string // file of the value, or ""
}

// patients are the victims.
func patients(t *testing.T) map[string]*patient {
	list := make(map[string]*patient)
	for kind, v := range victims(t) {
		list[kind] = newPatient(t, v.victim)
	}
	return list
}

func newPatient(t testing.TB, v victim) *patient {
	p := &patient{victim: v}
	store, err := db.Open("", &db.Options{FS: v.disk, ReadOnly: true})
	check(t, err)
	defer store.Close()
	for _, s := range store.Stats().Segments {
		name := s.ID.FileName()
		h, err := segment.ReadHeader(v.disk, s.ID)
		check(t, err)
		seg, err := segment.Open(v.disk, s.ID, h.Store, s.Length, 0)
		check(t, err)
		for r, err := range seg.Records(segment.HeaderSize, s.Length) {
			check(t, err)
			w := written{
				file: name, from: r.Offset, to: r.End, key: string(r.Key), seq: r.Seq,
				value: string(r.Value), deleted: r.Kind == segment.KindDelete,
			}
			if r.Kind == segment.KindBlobRef {
				w.readBlob(t, v.disk, r.Value)
			}
			if r.Kind != segment.KindWatermark {
				p.records = append(p.records, w)
			}
		}
	}
	return p
}

func (w *written) readBlob(t testing.TB, disk *simdisk.Disk, value []byte) {
	list, size, err := segment.DecodeBlobExtents(value)
	check(t, err)
	w.blob = list[0].Blob.BlobName()
	b, err := disk.ReadFile(w.blob)
	check(t, err)
	w.value = string(b[list[0].Offset:][:size])
}

// intact reports whether no byte of a record was touched.
func (p *patient) intact(w *written, damaged *simdisk.Disk) bool {
	same := func(name string, from, to int64) bool {
		before, _ := p.disk.ReadFile(name)
		after, _ := damaged.ReadFile(name)
		return int64(len(after)) >= to && bytes.Equal(before[from:to], after[from:to])
	}
	if w.blob != "" {
		before, _ := p.disk.ReadFile(w.blob)
		if !same(w.blob, 0, int64(len(before))) {
			return false
		}
	}
	return same(w.file, w.from, w.to)
}

// acceptable returns what a key may be after a repair: the newest version of
// which every byte is there, or a newer one.
func (p *patient) acceptable(damaged *simdisk.Disk) map[string][]string {
	least := make(map[string]uint64)
	for i := range p.records {
		if w := &p.records[i]; p.intact(w, damaged) {
			least[w.key] = max(least[w.key], w.seq)
		}
	}
	list := make(map[string][]string)
	for _, w := range p.records {
		if _, ok := least[w.key]; !ok {
			list[w.key] = append(list[w.key], absent)
		}
		switch {
		case w.seq < least[w.key]:
		case w.deleted:
			list[w.key] = append(list[w.key], absent)
		default:
			list[w.key] = append(list[w.key], w.value)
		}
	}
	return list
}

const absent = "\x00absent"

// operate repairs a damaged disk and returns an error unless the result is what
// a repair promises. moved says that files were exchanged, so that bytes are
// intact which don't lie where they did.
func (p *patient) operate(damaged *simdisk.Disk, moved bool) error {
	_, refused := db.Open("", &db.Options{FS: damaged.Clone()})
	acceptable := p.acceptable(damaged)
	if moved {
		acceptable = p.acceptable(p.disk)
	}
	report, err := dbcheck.Verify(context.Background(), "", &dbcheck.VerifyOptions{FS: damaged})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if refused != nil && len(report.Damage) == 0 {
		return fmt.Errorf("whole says verify, but Open: %w", refused)
	}
	before := filesOf(damaged)
	repaired, err := dbcheck.Repair(context.Background(), "", &dbcheck.RepairOptions{FS: damaged})
	if err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	if (len(report.Damage) > 0) != repaired.Changed {
		return fmt.Errorf("verify found %d damages, repair says %+v", len(report.Damage), repaired)
	}
	if !repaired.Changed && !maps.Equal(before, filesOf(damaged)) {
		return errors.New("a healthy store was changed")
	}
	if err := nothingDeleted(before, damaged); err != nil {
		return err
	}
	return p.examine(damaged, acceptable, repaired)
}

// nothingDeleted promises that every file is still there, or in the trash.
func nothingDeleted(before map[string]string, disk *simdisk.Disk) error {
	after := filesOf(disk)
	var trash []string
	for _, name := range disk.Trashed() {
		b, _ := disk.ReadFile(name)
		trash = append(trash, string(b))
	}
	for name, content := range before {
		if after[name] != content && !slices.Contains(trash, content) {
			return fmt.Errorf("%s is gone", name)
		}
	}
	return nil
}

// examine opens a repaired store for writing and reads everything.
func (p *patient) examine(disk *simdisk.Disk, acceptable map[string][]string, report dbcheck.RepairReport) error {
	if err := clean(disk); err != nil {
		return err
	}
	store, err := db.Open("", &db.Options{FS: disk, SegmentSize: 4 << 10})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	listed := make(map[string]dbcheck.LostKey)
	for _, l := range report.Lost {
		listed[string(l.Key)] = l
	}
	for key, versions := range acceptable {
		got, err := store.Get(nil, []byte(key))
		now := string(got)
		if errors.Is(err, db.ErrNotFound) {
			now = absent
		} else if err != nil {
			return err
		}
		if !slices.Contains(versions, now) {
			return fmt.Errorf("%q is %.40q of %d bytes, %d versions would be right\n%+v", key, now, len(now), len(versions), report)
		}
		want, ok := p.want[key]
		right := ok && now == want || !ok && now == absent
		l, is := listed[key]
		if right && is || !right && !is && len(report.Unknown) == 0 {
			return fmt.Errorf("%q is right: %v, listed: %v", key, right, is)
		}
		if is && l.OlderKept != (now != absent) {
			return fmt.Errorf("%q: older version kept: %v", key, l.OlderKept)
		}
	}
	found, err := store.Verify(context.Background(), nil)
	if err != nil || len(found.Damage) > 0 {
		return fmt.Errorf("verify after repair: %+v %w", found, err)
	}
	if err := errors.Join(store.Put([]byte("after"), []byte("repair"), nil), store.Close(), clean(disk)); err != nil {
		return err
	}
	again, err := dbcheck.Repair(context.Background(), "", &dbcheck.RepairOptions{FS: disk})
	if err != nil || again.Changed {
		return fmt.Errorf("second repair: %+v %w", again, err)
	}
	return nil
}

func clean(disk *simdisk.Disk) error {
	report, err := dbcheck.Verify(context.Background(), "", &dbcheck.VerifyOptions{FS: disk})
	if err == nil && len(report.Damage) > 0 {
		err = fmt.Errorf("still damaged: %v", report.Damage[0].Err)
	}
	return err
}

// change returns the same store with one file changed.
func (p *patient) change(name string, do func(b []byte) []byte) *simdisk.Disk {
	return p.damaged(name, do).disk
}

// TestRepairBits promises that after a repair of one flipped bit every key is
// right or listed, that no record is lost of which all bytes are there, and
// that the store is whole. Method: a sample of the bits of every file.
func TestRepairBits(t *testing.T) {
	for kind, p := range patients(t) {
		stride := 1531
		if os.Getenv("CROWFLY_FULL") != "" {
			stride = 97
		} else if underRace {
			stride *= 5
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			for _, name := range p.disk.Names() {
				b, err := p.disk.ReadFile(name)
				check(t, err)
				step := stride
				if filepath.Ext(name) == ".blob" {
					step = 8 * 1999
				}
				for bit := 0; bit < 8*len(b); bit += step {
					disk := p.change(name, func(b []byte) []byte {
						b[bit/8] ^= 1 << (bit % 8)
						return b
					})
					if err := p.operate(disk, false); err != nil {
						t.Fatalf("bit %d of byte %d of %s: %v", bit%8, bit/8, name, err)
					}
				}
			}
		})
	}
}

// TestRepairSectors promises the same for sectors that read as zeros or as
// another sector of the file. Of a segment that nobody sealed the last sector
// may be what proves the others, so the store was closed.
func TestRepairSectors(t *testing.T) {
	const sector = 512
	all := patients(t)
	for _, kind := range []string{"closed"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := all[kind]
			for _, name := range p.disk.Names() {
				b, err := p.disk.ReadFile(name)
				check(t, err)
				for to := 0; to < len(b); to += sector {
					for _, from := range []int{-1, (to + 3*sector) % len(b) / sector * sector} {
						disk := p.change(name, func(b []byte) []byte {
							lost := b[to:min(to+sector, len(b))]
							if clear(lost); from >= 0 {
								copy(lost, p.bytes(name)[from:])
							}
							return b
						})
						if err := p.operate(disk, false); err != nil {
							t.Fatalf("sector at %d of %s as at %d: %v", to, name, from, err)
						}
					}
				}
			}
		})
	}
}

func (p *patient) bytes(name string) []byte {
	b, _ := p.disk.ReadFile(name)
	return b
}

// TestRepairLengths promises the same for files that are cut off or have
// something behind their end. Of a segment that nobody sealed the end can't be
// told, so the store was closed.
func TestRepairLengths(t *testing.T) {
	all := patients(t)
	for _, kind := range []string{"closed"} {
		p := all[kind]
		for _, name := range p.disk.Names() {
			n := len(p.bytes(name))
			for cut := 0; cut < n+1000; cut += 1 + n/5 {
				disk := p.change(name, func(b []byte) []byte {
					return append(b, bytes.Repeat([]byte{0xa5}, 1000)...)[:cut]
				})
				if err := p.operate(disk, false); err != nil {
					t.Fatalf("%s, %s at length %d of %d: %v", kind, name, cut, n, err)
				}
			}
		}
	}
}

// TestRepairFiles promises the same for files that are missing, exchanged or of
// another store, and for a lost manifest: then nothing at all is missing.
func TestRepairFiles(t *testing.T) {
	other := newVictim(t, true)
	for kind, p := range patients(t) {
		for _, c := range p.fileDamages(other) {
			disk := p.disk.Clone()
			c.do(disk)
			if err := p.operate(disk, strings.HasSuffix(c.name, "exchanged")); err != nil {
				t.Errorf("%s, %s: %v", kind, c.name, err)
			}
		}
	}
}

// fileDamages adds to those of the damage tests files of another store beside
// ours, a directory that was copied by half, and one with damage of every kind.
func (p *patient) fileDamages(other victim) []fileDamage {
	names := p.disk.Names()
	list := fileDamages(p.victim, other)
	list = append(list, fileDamage{name: "mixed", do: func(disk *simdisk.Disk) {
		for _, name := range other.disk.Names() {
			if b, _ := other.disk.ReadFile(name); !slices.Contains(names, name) && filepath.Ext(name) == ".seg" {
				disk.WriteFile(name, b)
				break
			}
		}
		if b, err := other.disk.ReadFile(newestManifest(other.disk)); err == nil {
			disk.WriteFile(segment.ManifestName(1000), b)
		}
	}})
	for _, reverse := range []bool{false, true} {
		list = append(list, fileDamage{name: fmt.Sprint("copied by half, reverse ", reverse), do: func(disk *simdisk.Disk) {
			for i, name := range names {
				if first := i < len(names)/2; first == reverse && filepath.Ext(name) == ".seg" {
					disk.Remove(name)
				}
			}
		}})
	}
	return append(list, fileDamage{name: "everything", do: func(disk *simdisk.Disk) {
		for i, name := range names {
			b, _ := disk.ReadFile(name)
			for off := 300 + 100*i; off < len(b); off += 1500 {
				b[off] ^= 0x10
			}
			if i != 2 {
				disk.WriteFile(name, b)
			}
		}
	}})
}

// TestRepairHealthy promises that neither verify nor repair takes a torn tail, or
// what else a power cut leaves, for damage, and that a repair of a whole store
// changes nothing. Method: histories with a power cut after every operation.
func TestRepairHealthy(t *testing.T) {
	for kind, p := range patients(t) {
		before := filesOf(p.disk)
		report, err := dbcheck.Repair(context.Background(), "", &dbcheck.RepairOptions{FS: p.disk})
		if err != nil || report.Changed || len(report.Damage) > 0 || !maps.Equal(before, filesOf(p.disk)) {
			t.Errorf("%s: %+v, %v", kind, report, err)
		}
	}
	for _, mode := range []db.SyncMode{db.SyncAlways, db.SyncNever} {
		v := victim{disk: simdisk.New(), want: make(map[string]string)}
		rng := rand.New(rand.NewPCG(uint64(mode), 3))
		images := 0
		v.disk.OnOp(func(n int, op string) {
			for _, disk := range []*simdisk.Disk{v.disk.Clone(), v.disk.Crash(rng)} {
				if newestManifest(disk) == "" {
					continue // no store yet
				}
				images++
				if err := clean(disk); err != nil {
					t.Errorf("mode %d, after operation %d, %s: %v", mode, n, op, err)
				}
				report, err := dbcheck.Repair(context.Background(), "", &dbcheck.RepairOptions{FS: disk})
				if err != nil || len(report.Damage) > 0 {
					t.Errorf("mode %d, after operation %d, %s: %+v, %v", mode, n, op, report, err)
				}
			}
		})
		for run := range 4 {
			store, err := db.Open("", &db.Options{FS: v.disk, SegmentSize: 4 << 10, BlobSize: 4 << 10, Sync: mode})
			check(t, err)
			for i := range 15 {
				v.write(t, store, run, i)
				if i%5 == 0 {
					check(t, store.Put([]byte("large"), bytes.Repeat([]byte{byte(i)}, 5000), nil))
				}
			}
			check(t, store.Close())
		}
		t.Logf("mode %d: %d images", mode, images)
	}
}

// TestRepairCrash promises that a repair that is cut off, by a power cut or the
// end of the process, can be run again and comes to the same end, and that nothing
// of what it took out is deleted if the store is opened instead.
func TestRepairCrash(t *testing.T) {
	other := newVictim(t, true)
	for kind, p := range patients(t) {
		list := p.fileDamages(other)
		for i, c := range list {
			if (i%9 != 0 && i < len(list)-8) || underRace && i%3 != 0 {
				continue
			}
			t.Run(kind+" "+c.name, func(t *testing.T) {
				t.Parallel()
				p.cutOff(t, c)
			})
		}
	}
}

func (p *patient) cutOff(t *testing.T, c fileDamage) {
	damaged := p.disk.Clone()
	c.do(damaged)
	damaged = damaged.Crash(rand.New(rand.NewPCG(9, 9))) // all of it durable
	acceptable := p.acceptable(damaged)
	if strings.HasSuffix(c.name, "exchanged") {
		acceptable = p.acceptable(p.disk)
	}
	before := filesOf(damaged)
	work := damaged.Clone()
	rng := rand.New(rand.NewPCG(1, 2))
	var images []*simdisk.Disk
	work.OnOp(func(n int, op string) { images = append(images, work.Clone(), work.Crash(rng)) })
	first, err := dbcheck.Repair(context.Background(), "", &dbcheck.RepairOptions{FS: work})
	check(t, err)
	for i, disk := range images {
		done := newestManifest(disk) != newestManifest(damaged) // all but moving files
		if done {
			if err := openInstead(before, first.Trashed, disk.Clone()); err != nil {
				t.Fatalf("image %d: %v", i, err)
			}
		}
		report, err := dbcheck.Repair(context.Background(), "", &dbcheck.RepairOptions{FS: disk})
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		if done {
			report.Lost, report.Unknown = first.Lost, first.Unknown
		}
		if err := nothingDeleted(before, disk); err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		if err := p.examine(disk, acceptable, report); err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
	}
}

// openInstead opens a store after a repair that was cut off and returns an error
// if any file is gone that belongs in the trash.
func openInstead(before map[string]string, trashed []string, disk *simdisk.Disk) error {
	store, err := db.Open("", &db.Options{FS: disk})
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	replaced := make(map[string]string)
	for _, path := range trashed {
		if content, ok := before[filepath.Base(path)]; ok {
			replaced[filepath.Base(path)] = content
		}
	}
	return nothingDeleted(replaced, disk)
}
