package simdisk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// outcomes crashes a disk many times and counts what show says.
func outcomes(d *Disk, show func(*Disk) string) map[string]int {
	seen := make(map[string]int)
	for seed := range uint64(10_000) {
		seen[show(d.Crash(newRand(seed)))]++
	}
	return seen
}

// expect fails unless exactly these outcomes were seen.
func expect(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("%q was never seen", w)
		}
	}
	for s, n := range seen {
		if !slices.Contains(want, s) {
			t.Errorf("%q was seen %d times", s, n)
		}
	}
}

func allNames(d *Disk) string { return strings.Join(d.Names(), " ") }

func TestCreate(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	check(t, f.Sync())
	expect(t, outcomes(d, allNames), "", "a")
	check(t, d.SyncDir())
	expect(t, outcomes(d, allNames), "a")
}

func TestSyncDirDoesNotSyncContents(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "x", 0)
	check(t, d.SyncDir())
	expect(t, outcomes(d, func(d *Disk) string { return read(d, "a") }), "", "\x00", "x")
}

func TestRename(t *testing.T) {
	d := New()
	create(t, d, "a")
	check(t, d.SyncDir())
	check(t, d.Rename("a", "b"))
	expect(t, outcomes(d, allNames), "a", "b")
	check(t, d.SyncDir())
	expect(t, outcomes(d, allNames), "b")

	check(t, d.Rename("b", "c"))
	check(t, d.Rename("c", "d"))
	expect(t, outcomes(d, allNames), "b", "c", "d")
}

func TestRenameOfUnsyncedCreate(t *testing.T) {
	d := New()
	create(t, d, "tmp")
	check(t, d.Rename("tmp", "a"))
	expect(t, outcomes(d, allNames), "", "tmp", "a")
}

func TestRemove(t *testing.T) {
	d := New()
	create(t, d, "a")
	check(t, d.SyncDir())
	check(t, d.Remove("a"))
	expect(t, outcomes(d, allNames), "", "a")
	create(t, d, "b")
	// Without a journal the create may survive and the remove not.
	expect(t, outcomes(d, allNames), "", "a", "a b", "b")
	check(t, d.SyncDir())
	expect(t, outcomes(d, allNames), "b")
}

// TestTrash promises that a file is in its place or in the trash after a power
// cut, never in both and never in none.
func TestTrash(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "content", 0)
	check(t, f.Sync())
	check(t, d.SyncDir())
	path, err := d.Trash("a")
	check(t, err)
	if len(d.Names()) > 0 || !slices.Equal(d.Trashed(), []string{path}) {
		t.Fatalf("files %q, trash %q", d.Names(), d.Trashed())
	}
	places := make(map[string]bool)
	for seed := range uint64(50) {
		c := d.Crash(rand.New(rand.NewPCG(seed, 0)))
		names := append(c.Names(), c.Trashed()...)
		if len(names) != 1 || read(c, names[0]) != "content" {
			t.Fatalf("seed %d leaves %q", seed, names)
		}
		places[names[0]] = true
	}
	if len(places) != 2 {
		t.Errorf("seen in %v only", places)
	}
	check(t, d.SyncDir())
	if c := d.Crash(rand.New(rand.NewPCG(0, 0))); read(c, path) != "content" || read(c, "a") != "absent" {
		t.Error("not durable after SyncDir")
	}
}

func TestNameUsedAgain(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "old", 0)
	check(t, f.Sync())
	check(t, d.SyncDir())
	check(t, d.Remove("a"))
	f = create(t, d, "a")
	write(t, f, "new", 0)
	check(t, f.Sync())
	expect(t, outcomes(d, func(d *Disk) string { return read(d, "a") }), "absent", "old", "new")
}

func TestSyncedBytesSurvive(t *testing.T) {
	d := New()
	want := make(map[string]string)
	for i := range 5 {
		name := fmt.Sprint("f", i)
		f := create(t, d, name)
		for j := range 4 {
			write(t, f, strings.Repeat(string(rune('a'+j)), 700), int64(700*j))
			check(t, f.Datasync())
		}
		want[name] = read(d, name)
		write(t, f, strings.Repeat("U", 5000), 2800) // never synced
	}
	check(t, d.SyncDir())
	for seed := range uint64(10_000) {
		after := d.Crash(newRand(seed))
		for name, prefix := range want {
			if !strings.HasPrefix(read(after, name), prefix) {
				t.Fatalf("seed %d: synced bytes of %s are gone", seed, name)
			}
		}
	}
}

// TestUnsyncedSectors looks at every subset of four sectors.
func TestUnsyncedSectors(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, strings.Repeat(".", 4*sector), 0)
	check(t, f.Sync())
	check(t, d.SyncDir())
	for i := range 4 {
		write(t, f, strings.Repeat("N", sector), int64(i*sector))
	}
	seen := outcomes(d, func(d *Disk) string {
		got := read(d, "a")
		var sectors strings.Builder
		for i := range 4 {
			s := got[i*sector:][:sector]
			if strings.Trim(s, s[:1]) != "" {
				t.Fatalf("sector %d is mixed", i)
			}
			sectors.WriteString(s[:1])
		}
		return sectors.String()
	})
	if len(seen) != 16 {
		t.Errorf("%d of 16 subsets were seen: %v", len(seen), seen)
	}
}

func TestUnsyncedSize(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "0123456789", 0)
	check(t, f.Sync())
	check(t, d.SyncDir())
	write(t, f, "0123456789", 10)
	seen := outcomes(d, func(d *Disk) string { return fmt.Sprint(len(read(d, "a"))) })
	if len(seen) != 11 || seen["10"] == 0 || seen["20"] == 0 {
		t.Errorf("sizes seen: %v, want 10 to 20", seen)
	}
}

// TestGarbage wants holes to be zeros mostly and sometimes what another file,
// living or removed, has at the same place.
func TestGarbage(t *testing.T) {
	d := New()
	for _, name := range []string{"L", "R"} {
		other := create(t, d, name)
		write(t, other, strings.Repeat(name, 8*sector), 0)
		check(t, other.Sync())
	}
	f := create(t, d, "a")
	check(t, d.SyncDir())
	check(t, d.Remove("R"))
	write(t, f, strings.Repeat("N", 2*sector), 0)
	firstByte := func(d *Disk) string { return (read(d, "a") + "-")[:1] }
	expect(t, outcomes(d, firstByte), "-", "\x00", "N", "L", "R")
}

func TestCrashIsDeterministic(t *testing.T) {
	d := busyDisk(t)
	for seed := range uint64(200) {
		a, b := dump(d.Crash(newRand(seed))), dump(d.Crash(newRand(seed)))
		if a != b {
			t.Fatalf("seed %d gives two disks", seed)
		}
	}
}

// TestDisksAreIndependent writes to a disk and its copies at once.
func TestDisksAreIndependent(t *testing.T) {
	d := busyDisk(t)
	cut, clone := d.Crash(newRand(7)), d.Clone()
	disks := []*Disk{d, cut, clone, cut.Crash(newRand(8)), clone.Clone()}
	before := make([]string, len(disks))
	for i, disk := range disks {
		before[i] = dump(disk)
	}
	for i, disk := range disks {
		for _, name := range disk.Names() {
			check(t, disk.Rename(name, "old-"+name))
			b, err := disk.ReadFile("old-" + name)
			check(t, err)
			disk.WriteFile(name, b)
		}
		f, err := disk.Create("new")
		check(t, err)
		write(t, f, fmt.Sprint("disk", i), 3)
		write(t, f, "X", 4)
		check(t, f.Datasync())
		for j := i + 1; j < len(disks); j++ {
			if dump(disks[j]) != before[j] {
				t.Fatalf("writing to disk %d changed disk %d", i, j)
			}
		}
	}
}

// TestAppendAfterClone: both sides append to what they share.
func TestAppendAfterClone(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "shared", 0)
	write(t, f, "+", 6) // leaves spare capacity
	clone := d.Clone()
	write(t, f, "mine", 7)
	g := &file{disk: clone, ino: clone.names.get("a"), name: "a", writable: true}
	write(t, g, "yours", 7)
	write(t, f, "S", 0)
	if a, b := read(d, "a"), read(clone, "a"); a != "Shared+mine" || b != "shared+yours" {
		t.Errorf("got %q and %q", a, b)
	}
}

func TestCloneKeepsPending(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "x", 0)
	clone := d.Clone()
	if got := read(clone, "a"); got != "x" {
		t.Errorf("the clone reads %q", got)
	}
	expect(t, outcomes(clone, func(d *Disk) string { return read(d, "a") }), "absent", "", "\x00", "x")
	g, err := clone.Open("a")
	check(t, err)
	check(t, g.Datasync())
	check(t, clone.SyncDir())
	expect(t, outcomes(clone, func(d *Disk) string { return read(d, "a") }), "x")
	expect(t, outcomes(d, func(d *Disk) string { return read(d, "a") }), "absent", "", "\x00", "x")
}

func TestCrashedDiskIsDurable(t *testing.T) {
	d := busyDisk(t).Crash(newRand(3))
	want := dump(d)
	for seed := range uint64(100) {
		if dump(d.Crash(newRand(seed))) != want {
			t.Fatal("a second crash lost something")
		}
	}
}

func TestWriteFileIsDurable(t *testing.T) {
	d := busyDisk(t)
	d.WriteFile("f0", []byte("damaged"))
	d.WriteFile("fresh", []byte("fresh"))
	for seed := range uint64(1000) {
		after := d.Crash(newRand(seed))
		if read(after, "f0") != "damaged" || read(after, "fresh") != "fresh" {
			t.Fatalf("seed %d: a crash undid WriteFile", seed)
		}
	}
}

// busyDisk is the size of a small store in the middle of its work.
func busyDisk(t testing.TB) *Disk {
	d := New()
	for i := range 10 {
		name := fmt.Sprint("f", i)
		f := create(t, d, "tmp-"+name)
		write(t, f, strings.Repeat(name, 4<<10), 0)
		check(t, f.Sync())
		check(t, d.Rename("tmp-"+name, name))
		check(t, d.SyncDir())
		if i%4 == 0 {
			write(t, f, strings.Repeat("u", 4<<10), 8<<10)
			write(t, f, strings.Repeat("v", 4<<10), 12<<10)
		}
	}
	create(t, d, "unsynced")
	check(t, d.Remove("f3"))
	return d
}

func dump(d *Disk) string {
	var s strings.Builder
	for _, name := range d.Names() {
		fmt.Fprintf(&s, "%s %q\n", name, read(d, name))
	}
	return s.String()
}

func BenchmarkCrash(b *testing.B) {
	d := busyDisk(b)
	rng := newRand(1)
	b.ReportAllocs()
	for b.Loop() {
		d.Crash(rng)
	}
}

// TestManner promises that a given manner is kept to. Method: the outcomes of
// many cuts of one disk, which has a file with unsynced bytes and two names
// made in order, are listed for some manners.
func TestManner(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "old", 0)
	check(t, f.Sync())
	check(t, d.SyncDir())
	write(t, f, "new", 3)
	create(t, d, "b")
	create(t, d, "c")
	for _, c := range []struct {
		manner Manner
		want   []string
	}{
		{Manner{Keep: KeepNone, Size: SizeDurable}, []string{"a old"}},
		{Manner{Keep: KeepNone, Size: SizeCached}, []string{"a old\x00\x00\x00"}},
		{Manner{Keep: KeepAll, Size: SizeDurable}, []string{"a b c old"}},
		{Manner{Keep: KeepAll, Size: SizeOfBytes}, []string{"a b c oldnew"}},
		{Manner{Keep: KeepOne, Size: SizeCached}, []string{"a b oldnew", "a c oldnew"}},
		{Manner{Keep: KeepOne, Size: SizeCached, Ordered: true}, []string{"a oldnew", "a b oldnew", "a b c oldnew"}},
	} {
		seen := make(map[string]int)
		for seed := range uint64(1000) {
			after := d.CrashIn(c.manner, newRand(seed))
			seen[allNames(after)+" "+read(after, "a")]++
		}
		expect(t, seen, c.want...)
	}
}

// TestPending promises that Pending and Sum tell when a cut has one outcome.
func TestPending(t *testing.T) {
	d := New()
	f := create(t, d, "a")
	write(t, f, "x", 0)
	check(t, d.SyncDir())
	if !d.Pending() || d.Sum() == d.CrashIn(Manner{Keep: KeepNone, Size: SizeDurable}, newRand(0)).Sum() {
		t.Error("unsynced bytes go unnoticed")
	}
	check(t, f.Datasync())
	if d.Pending() || d.Sum() != d.Crash(newRand(0)).Sum() {
		t.Error("a synced disk counts as pending")
	}
	check(t, d.Remove("a"))
	if !d.Pending() {
		t.Error("a removal goes unnoticed")
	}
}
