package main

import (
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

func tiny(t *testing.T) config {
	return config{
		dir: t.TempDir(), keys: 5000, length: 2 * time.Second, sample: 200 * time.Millisecond,
		rate: 5000, hold: 100 * time.Millisecond, verified: 1000,
		options: db.Options{Sync: db.SyncInterval, BlobSize: 16 << 10, SegmentSize: 256 << 10},
	}
}

// The whole program runs, and there is something of everything: blobs, deletes,
// values and snapshots held, compactions. Method: it is run for longer and
// longer until there was, since nobody knows how fast the machine is.
func TestProgram(t *testing.T) {
	const most = time.Minute
	c := tiny(t)
	for ; ; c.length *= 2 {
		var out strings.Builder
		list, err := c.soak(&out, t.TempDir())
		t.Log("\n" + out.String())
		if err != nil {
			t.Fatal(err)
		}
		missing := missing(list, out.String())
		if missing == "" {
			flat(t.Output(), list)
			return
		}
		if c.length > most {
			t.Fatal("there was no ", missing)
		}
	}
}

func missing(list []sample, text string) string {
	if len(list) < 6 {
		return "second third"
	}
	for _, none := range []string{" 0 reads", " 0 snapshots", " 0 values"} {
		if strings.Contains(text, none) {
			return none[3:]
		}
	}
	switch last := list[len(list)-1].stats; {
	case last.Compaction.Compactions == 0:
		return "compaction"
	case last.Blobs == 0:
		return "blob"
	}
	return ""
}

func TestFlags(t *testing.T) {
	var out strings.Builder
	if run([]string{"-keys", "1"}, &out) != 2 {
		t.Error(out.String())
	}
}

// A read may show what was acknowledged before it, and what may have come in
// between, and nothing else. Method: a key whose operations go put, put, delete,
// put.
func TestModel(t *testing.T) {
	m := newModel(100_000, 16<<10)
	key := findKey(t, m, []bool{false, false, true, false})
	value := func(n uint32) []byte { return m.value(nil, key, n) }
	cases := []struct {
		n     uint32
		s     span
		value []byte
		right bool
	}{
		{1, span{1, 2}, value(1), true}, {1, span{1, 2}, value(2), true}, {1, span{1, 2}, nil, false},
		{1, span{2, 3}, value(1), false}, {1, span{2, 3}, nil, true}, {1, span{2, 2}, nil, false},
		{1, span{3, 4}, value(2), false}, {1, span{3, 4}, nil, true}, {1, span{4, 5}, value(4), true},
		{1, span{1, 2}, value(4), false}, {0, span{0, 1}, nil, true}, {1, span{1, 2}, value(1)[:99], false},
		{1, span{1, 2}, []byte{}, false},
	}
	for _, c := range cases {
		if err := m.check(key, c.s, c.value, c.value != nil); (err == nil) != c.right {
			t.Errorf("%+v of %d bytes: %v", c.s, len(c.value), err)
		}
	}
	spoilt := value(1)
	for i := range spoilt {
		spoilt[i] ^= 1
		if m.check(key, span{1, 1}, spoilt, true) == nil {
			t.Fatalf("byte %d was not looked at", i)
		}
		spoilt[i] ^= 1
	}
	if m.check(key+1, span{1, 1}, value(1), true) == nil {
		t.Error("the value of another key is taken for the right one")
	}
}

func findKey(t *testing.T, m *model, deletes []bool) uint64 {
	for key := range uint64(len(m.done)) {
		found := true
		for i, want := range deletes {
			found = found && m.isDelete(key, uint32(i+1)) == want
		}
		if found {
			return key
		}
	}
	t.Fatal("no such key")
	return 0
}

// Values of each kind occur about as often as they should.
func TestSizes(t *testing.T) {
	const n = 100_000
	m := newModel(1, 64<<10)
	var deletes, blobs, mediums int
	for key := range uint64(n) {
		switch size := m.size(key, 1); {
		case size >= 64<<10 && size < 192<<10:
			blobs++
		case size == medium:
			mediums++
		case size < smallest || size > small:
			t.Fatal(size)
		}
		if m.isDelete(key, 1) {
			deletes++
		}
	}
	if deletes < n/12 || deletes > n/8 || blobs < n/10000 || blobs > n/2500 || mediums < n/60 || mediums > n/40 {
		t.Errorf("%d deletes, %d blobs, %d of 4 KiB", deletes, blobs, mediums)
	}
}

// What grows by more than a tenth is found, each by itself.
func TestFlat(t *testing.T) {
	grow := func(change func(s *sample, i int)) bool {
		list := make([]sample, 9)
		for i := range list {
			list[i].process = measure.Process{Anon: 1 << 30, Maps: 1000, Descriptors: 1000}
			list[i].space = measure.Space{Files: 1 << 30}
			change(&list[i], max(i-5, 0)) // 1, 2, 3 in the last third
		}
		return flat(t.Output(), list)
	}
	for name, change := range map[string]func(s *sample, i int){
		"memory":      func(s *sample, i int) { s.process.Anon += int64(i) * 60 << 20 },
		"mappings":    func(s *sample, i int) { s.process.Maps += i * 60 },
		"descriptors": func(s *sample, i int) { s.process.Descriptors += i * 60 },
		"files":       func(s *sample, i int) { s.space.Files += int64(i) * 60 << 20 },
		"unlinked":    func(s *sample, i int) { s.space.Unlinked += int64(i) * 60 << 20 },
	} {
		if grow(change) {
			t.Errorf("%s: not found", name)
		}
	}
	if !grow(func(s *sample, i int) { s.process.Anon += int64(i) * 40 << 20 }) {
		t.Error("a growth of 8 % is too much")
	}
	if !grow(func(s *sample, i int) { s.process.Maps = 10 + 5*i; s.process.Descriptors = 5 + 5*i }) {
		t.Error("a few mappings and descriptors are too much")
	}
	if flat(t.Output(), make([]sample, 2)) {
		t.Error("two samples tell")
	}
}
