package index

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/segment"
)

// loaded returns an index of the given kind that was told of records by Load.
func loaded(t *testing.T, o Options, records ...*segment.Record) (*store, []Change) {
	s := loadingStore(t, o)
	var changes []Change
	var refs []*Change
	for _, r := range records {
		changes = append(changes, s.write(r))
	}
	for i := range changes {
		refs = append(refs, &changes[i])
	}
	s.index.Load(slices.Values(refs))
	return s, changes
}

func numbered(r *segment.Record, seq uint64) *segment.Record {
	r.Seq = seq
	return r
}

// TestLoad: what was loaded is found and counted, tombstones keep older
// records out until they are dropped, and what comes by Merge before or behind
// in sequence takes its place.
func TestLoad(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s, c := loaded(t, Options{KeepTombstones: keep},
			numbered(segment.NewPut([]byte("a"), nil, []byte("5")), 5),
			numbered(segment.NewPut([]byte("b"), nil, []byte("6")), 6),
			numbered(segment.NewDelete([]byte("gone")), 7))
		s.rotate()
		older := []Change{
			s.write(numbered(segment.NewPut([]byte("a"), nil, []byte("1")), 1)),
			s.write(numbered(segment.NewPut([]byte("b"), nil, []byte("8")), 8)),
			s.write(numbered(segment.NewPut([]byte("gone"), nil, []byte("2")), 2)),
			s.write(numbered(segment.NewPut([]byte("c"), nil, []byte("3")), 3)),
		}
		if _, err := s.index.Merge(older, 0); err != nil {
			t.Fatal(err)
		}
		if !keep {
			s.index.DropTombstones()
		}
		s.index.Publish(nil, 8)
		s.wantValue("a", "5")
		s.wantValue("b", "8")
		s.wantValue("c", "3")
		s.wantAbsent("gone")
		s.wantBooks(map[string]Change{"a": c[0], "b": older[1], "c": older[3]})
		if o := s.snapshot(); o.Len() != 3 {
			t.Errorf("%d keys in order", o.Len())
		}
	}
}

// TestLoadMany: tables grow while they are filled.
func TestLoadMany(t *testing.T) {
	var list []*segment.Record
	for i := range 20_000 {
		list = append(list, numbered(segment.NewPut(fmt.Append(nil, i), nil, nil), uint64(i+1)))
	}
	s, c := loaded(t, Options{}, list...)
	s.index.Publish(nil, 20_000)
	live := make(map[string]Change)
	for i := range c {
		s.wantValue(fmt.Sprint(i), "")
		live[fmt.Sprint(i)] = c[i]
	}
	s.wantBooks(live)
}

// TestMergeVerifies: a record that only a hint has told of, and that turns out
// to be damaged in its key, its number or its kind, does not bring an older
// version back, and Snapshot does not leave it out.
func TestMergeVerifies(t *testing.T) {
	for name, at := range map[string]int64{"key": 48, "key length": 24, "sequence number": 40, "kind": 28} {
		s, c := loaded(t, Options{}, numbered(segment.NewPut([]byte("key"), nil, []byte("new")), 10))
		s.rotate()
		older := s.write(numbered(segment.NewPut([]byte("key"), nil, []byte("old")), 9))
		flip(s, c[0].Ref, at, 0x0a)
		var damage *segment.CorruptError
		if _, err := s.index.Merge([]Change{older}, 0); !errors.As(err, &damage) || damage.Offset != c[0].Ref.Offset() {
			t.Errorf("%s: Merge returns %v", name, err)
		}
		s.index.Publish(nil, 10)
		if _, err := s.index.Snapshot(); !errors.As(err, &damage) {
			t.Errorf("%s: Snapshot returns %v", name, err)
		}
	}
}
