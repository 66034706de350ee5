package db

import (
	"fmt"
	"os"
	"testing"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// A torture is a store in which every segment puts, deletes or leaves alone
// every key, and for every way to do so over all segments there is one key.
type torture struct {
	*testing.T
	segments int
	ways     []int // those of the keys there are
	want     map[string]string
	checked  int
}

// pow is the number of ways.
func pow(base, n int) int {
	if n == 0 {
		return 1
	}
	return base * pow(base, n-1)
}

// build returns the disk of the closed store. SyncNever makes no difference to
// what is in it, and is faster.
func (x *torture) build() *simdisk.Disk {
	disk := simdisk.New()
	for s := range x.segments {
		db, err := Open("", &Options{FS: disk, Sync: SyncNever})
		if err != nil {
			x.Fatal(err)
		}
		db.compactor.folded.Store(true) // no segment is merged with others here
		for _, way := range x.ways {
			key := fmt.Sprint("key", way)
			switch way / pow(3, s) % 3 {
			case 1:
				x.want[key] = fmt.Sprint("value", s)
				mustPut(x.T, db, key, x.want[key])
			case 2:
				delete(x.want, key)
				db.Delete([]byte(key), nil)
			}
		}
		if err := db.Close(); err != nil {
			x.Fatal(err)
		}
	}
	return disk
}

// try compacts every choice of the segments that are left, and after each does
// the same with what is left then.
func (x *torture) try(disk *simdisk.Disk, done string, depth int) {
	m, err := manifest.Read(disk, disk.Names())
	if err != nil {
		x.Fatal(err)
	}
	if m == nil {
		return // there was nothing to put or delete
	}
	for choice := 1; choice < 1<<len(m.Segments); choice++ {
		path := fmt.Sprintf("%s/%b of %d", done, choice, len(m.Segments))
		after := x.compact(disk.Clone(), choice, path)
		if depth > 1 && !x.Failed() {
			x.try(after, path, depth-1)
		}
	}
}

// compact compacts the chosen segments, checks the store and leaves it closed.
func (x *torture) compact(disk *simdisk.Disk, choice int, path string) *simdisk.Disk {
	db, err := Open("", &Options{FS: disk})
	if err != nil {
		x.Fatalf("%s: %v", path, err)
	}
	var inputs []*segment.Segment
	for i, e := range db.manifests.Current().Segments {
		if choice>>i&1 != 0 {
			inputs = append(inputs, db.index.Segments().Find(e.ID))
		}
	}
	if err := db.newCompaction(inputs).run(); err != nil {
		x.Fatalf("%s: %v", path, err)
	}
	x.check(db, path)
	if err := db.Close(); err != nil {
		x.Fatalf("%s: %v", path, err)
	}
	again, err := Open("", &Options{FS: disk})
	if err != nil {
		x.Fatalf("%s, opened again: %v", path, err)
	}
	x.check(again, path+", opened again")
	again.Close()
	x.checked++
	return disk
}

func (x *torture) check(db *DB, path string) {
	for _, way := range x.ways {
		key := fmt.Sprint("key", way)
		got, err := db.Get(nil, []byte(key))
		if want, there := x.want[key]; there != (err == nil) || string(got) != want {
			x.Fatalf("%s: %s is %q, %v; want %q, %v", path, key, got, err, want, there)
		}
	}
	if n := db.Stats().Keys; n != len(x.want) {
		x.Fatalf("%s: %d keys, want %d", path, n, len(x.want))
	}
}

// No order of compactions brings a deleted or overwritten value back, or loses
// one. Method: in a store where each of four segments (five with CROWFLY_FULL)
// puts, deletes or leaves alone each key, in every combination, every choice of
// segments is compacted, then every choice of what is left, and so on; then the
// same for a store of each of these keys alone, with segments in which all is dead.
func TestCompactionOrders(t *testing.T) {
	segments, depth := 4, 3
	if os.Getenv("CROWFLY_FULL") != "" {
		segments, depth = 5, 4
	}
	var ways []int
	for way := range pow(3, segments) {
		ways = append(ways, way)
	}
	checked := 0
	try := func(ways []int, depth int) {
		x := &torture{T: t, segments: segments, ways: ways, want: make(map[string]string)}
		x.try(x.build(), fmt.Sprint(ways), depth)
		checked += x.checked
	}
	try(ways, depth)
	for i := range ways {
		try(ways[i:i+1], 3)
	}
	t.Logf("%d compactions", checked)
}
