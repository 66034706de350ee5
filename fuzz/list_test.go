package fuzz

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/crowfly/crowfly/db"
)

// listing is a way to go through a snapshot.
type listing struct {
	way        string // All, Range, Backward or Prefix
	start, end string // "" is open
	prefix     string
}

// listings are what every snapshot is asked for.
var listings = []listing{
	{way: "All"},
	{way: "Backward"},
	{way: "Range", start: "a\x00", end: "b"},
	{way: "Backward", start: "ab", end: "shared/c"},
	{way: "Prefix", prefix: "a"},
	{way: "Prefix", prefix: "\xff", start: "\xff\x01"},
}

// list goes through a part of a new snapshot, chosen by the operation.
func (s *session) list(op operation) error {
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(op.detail, 0))
	for range 4 {
		l := listing{way: [...]string{"Range", "Backward", "Prefix"}[rng.IntN(3)], start: bound(rng), end: bound(rng)}
		if b := bound(rng); l.way == "Prefix" {
			l.prefix, l.end = b[:rng.IntN(len(b)+1)], ""
		}
		limit := -1
		if rng.IntN(2) == 0 {
			limit = rng.IntN(4)
		}
		if err := s.checkListing(snap, s.ref.now(), l, limit); err != nil {
			return err
		}
	}
	return snap.Close()
}

// bound draws a key, something beside one, or nothing.
func bound(rng *rand.Rand) string {
	key := keys[rng.IntN(len(keys))]
	return [...]string{"", key, key, key + "\x00", key[:len(key)-1]}[rng.IntN(5)]
}

// checkListing goes through a snapshot, up to limit entries if that is not
// negative.
func (s *session) checkListing(snap *db.Snapshot, want state, l listing, limit int) error {
	if err := s.checkEntries(l.entries(snap), l.keys(want), want, limit); err != nil {
		return fmt.Errorf("snapshot.%s %.40q: %w", l.way, []string{l.prefix, l.start, l.end}, err)
	}
	return nil
}

func (l listing) entries(snap *db.Snapshot) iter.Seq2[[]byte, db.Entry] {
	switch l.way {
	case "Range":
		return snap.Range(open(l.start), open(l.end))
	case "Backward":
		return snap.Backward(open(l.start), open(l.end))
	case "Prefix":
		return snap.Prefix([]byte(l.prefix), open(l.start))
	}
	return snap.All()
}

func open(bound string) []byte {
	if bound == "" {
		return nil
	}
	return []byte(bound)
}

// keys are those that a listing must yield, in order.
func (l listing) keys(s state) (list []int) {
	for k, v := range s {
		key := keys[k]
		if v != 0 && key >= l.start && (l.end == "" || key < l.end) && strings.HasPrefix(key, l.prefix) {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b int) int { return strings.Compare(keys[a], keys[b]) })
	if l.way == "Backward" {
		slices.Reverse(list)
	}
	return list
}

// checkEntries compares an iteration with the keys it should yield.
func (s *session) checkEntries(entries iter.Seq2[[]byte, db.Entry], order []int, want state, limit int) error {
	i := 0
	for key, e := range entries {
		if i == limit {
			return nil
		}
		if e.Err() != nil {
			return e.Err()
		}
		if i == len(order) || string(key) != keys[order[i]] {
			return fmt.Errorf("entry %d is %.40q, the keys are %v", i, key, order)
		}
		if err := s.checkEntry(&e, want[order[i]]); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		i++
	}
	if i < len(order) {
		return fmt.Errorf("ends after %d entries, the keys are %v", i, order)
	}
	return nil
}

func (s *session) checkEntry(e *db.Entry, want uint16) error {
	value := s.ref.values[want]
	b, err := e.Bytes()
	if err != nil || !bytes.Equal(b, value) || e.Size() != int64(len(value)) {
		return fmt.Errorf("%d bytes, should be v%d (%v)", len(b), want, err)
	}
	m, err := e.Metadata()
	if err := checkMetadata(m, e.ModTime(), want, err); err != nil {
		return err
	}
	return s.checkVersion(e.Version(), want)
}
