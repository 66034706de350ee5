package db

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
)

func keysOf(t *testing.T, seq iter.Seq2[[]byte, Entry]) (keys []string) {
	t.Helper()
	for key, e := range seq {
		if e.Err() != nil {
			t.Fatal(e.Err())
		}
		keys = append(keys, string(key))
	}
	return keys
}

// A snapshot shows the store of its moment, in order, whatever is written and
// folded meanwhile.
func TestSnapshot(t *testing.T) {
	db := open(t, t.TempDir(), &Options{SegmentSize: 8 << 10, Sync: SyncNever})
	var want []string
	for i := range 1000 {
		key := fmt.Sprintf("%d/%d", i%10, i)
		mustPut(t, db, key, "value of "+key)
		want = append(want, key)
	}
	slices.Sort(want)
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 1000 {
		if i%2 == 0 {
			mustPut(t, db, fmt.Sprintf("%d/%d", i%10, i), "changed")
		} else if err := db.Delete(fmt.Appendf(nil, "%d/%d", i%10, i), nil); err != nil {
			t.Fatal(err)
		}
		mustPut(t, db, fmt.Sprint("new", i), "x")
	}
	if got := keysOf(t, s.All()); !slices.Equal(got, want) || s.Len() != len(want) {
		t.Errorf("%d keys, Len %d, want %d", len(got), s.Len(), len(want))
	}
	back := keysOf(t, s.Backward(nil, nil))
	slices.Reverse(back)
	if !slices.Equal(back, want) {
		t.Errorf("backward: %d keys", len(back))
	}
	if got := keysOf(t, s.Prefix([]byte("3/"), []byte("3/9"))); len(got) != 11 || got[0] != "3/903" && got[0] != "3/93" {
		t.Errorf("prefix: %v", got)
	}
	if got := keysOf(t, s.Range([]byte("3/"), []byte("4/"))); len(got) != 100 {
		t.Errorf("range: %d keys", len(got))
	}
	for key, e := range s.All() {
		value, err := e.Bytes()
		if err != nil || string(value) != "value of "+string(key) {
			t.Fatalf("%s: %q, %v", key, value, err)
		}
	}
	if got, err := s.Get(nil, []byte("5/5")); err != nil || string(got) != "value of 5/5" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.Get(nil, []byte("new1")); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if n := db.Stats().Snapshots; n != 1 {
		t.Errorf("%d open snapshots", n)
	}
}

// An iteration may be left early, nested, and goes on while the store changes;
// a closed snapshot says so.
func TestIteration(t *testing.T) {
	db := open(t, t.TempDir(), nil)
	for i := range 300 {
		mustPut(t, db, fmt.Sprintf("%03d", i), "")
	}
	s, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for key := range s.All() {
		for range s.Range(key, nil) {
			break
		}
		if n++; n == 200 {
			break
		}
	}
	s.Close()
	for key, e := range s.All() {
		if key != nil || !errors.Is(e.Err(), ErrClosed) {
			t.Errorf("%q, %v", key, e.Err())
		}
	}
	if _, err := s.Get(nil, []byte("001")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "a": "b", "a\xff": "b", "\xff\xff": "", "a\xfe": "a\xff"} {
		if got := string(prefixEnd([]byte(prefix))); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
}
