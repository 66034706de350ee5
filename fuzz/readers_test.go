package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/crowfly/crowfly/db"
)

// metadata of a put: every third value has some, which says its number.
func metadata(value uint16) *db.Metadata {
	if value%3 != 0 {
		return nil
	}
	return &db.Metadata{ContentType: fmt.Sprintf("value/%d", value)}
}

// read asks for every key and returns what the store contains. get is the Get
// of a store or snapshot.
func (s *session) read(get func(dst, key []byte) ([]byte, error)) (found state, err error) {
	var buf []byte
	for k := range keys[:s.keys] {
		buf, err = get(buf[:0], []byte(keys[k]))
		if errors.Is(err, db.ErrNotFound) {
			continue
		}
		if err == nil {
			found[k], err = s.ref.number(buf)
		}
		if err != nil {
			return found, fmt.Errorf("key %d: %w", k, err)
		}
	}
	return found, nil
}

// check compares the store with the reference, by Get.
func (s *session) check() error {
	found, err := s.read(s.store.Get)
	if err != nil {
		return err
	}
	want := s.ref.now()
	if found != want {
		return fmt.Errorf("Get finds %v, should be %v", found, want)
	}
	if n := s.store.Stats().Keys; n != want.len() {
		return fmt.Errorf("Stats counts %d keys of %v", n, want)
	}
	return nil
}

// checkReaders compares what readers see while a write is under way, for which
// they need no lock: as yet nothing of it. Afterwards no file operation is
// left, so this proves that readers see a write once it is as durable as it
// is going to be, and no sooner.
func (s *session) checkReaders() error {
	if s.ref.opening {
		return nil
	}
	found, err := s.read(s.store.Get)
	if want := s.ref.now(); err != nil || found != want {
		return fmt.Errorf("beside a write, readers find %v, should be %v (%v)", found, want, err)
	}
	return nil
}

// checkAll compares in every way there is to read.
func (s *session) checkAll() error {
	if err := s.check(); err != nil {
		return err
	}
	want := s.ref.now()
	for k := range keys[:s.keys] {
		if err := s.checkKey(k, want[k]); err != nil {
			return fmt.Errorf("key %d: %w", k, err)
		}
	}
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	return errors.Join(s.checkSnapshot(snap, want), snap.Close())
}

// checkKey compares one key as View and Value show it.
func (s *session) checkKey(k int, want uint16) error {
	key := []byte(keys[k])
	found := uint16(0)
	err := s.store.View(key, func(b []byte) (err error) {
		found, err = s.ref.number(b)
		return err
	})
	if want == 0 && errors.Is(err, db.ErrNotFound) {
		return nil
	}
	if err != nil || found != want {
		return fmt.Errorf("View finds v%d, should be v%d (%v)", found, want, err)
	}
	v, err := s.store.Value(key)
	if err != nil {
		return err
	}
	return errors.Join(s.checkValue(v, want), v.Close())
}

func (s *session) checkValue(v *db.Value, want uint16) error {
	value := s.ref.values[want]
	b, err := v.Bytes()
	if err != nil || !bytes.Equal(b, value) || v.Size() != int64(len(value)) {
		return fmt.Errorf("Value has %d bytes, should be v%d (%v)", v.Size(), want, err)
	}
	half := int64(len(value) / 2)
	part, err := v.Range(half, int64(len(value))-half)
	if err != nil || !bytes.Equal(part, value[half:]) {
		return fmt.Errorf("Range finds other bytes than v%d (%v)", want, err)
	}
	m, err := v.Metadata()
	return checkMetadata(m, want, err)
}

func checkMetadata(m db.Metadata, value uint16, err error) error {
	want := ""
	if w := metadata(value); w != nil {
		want = w.ContentType
	}
	if err != nil || m.ContentType != want {
		return fmt.Errorf("content type %q of v%d, should be %q (%v)", m.ContentType, value, want, err)
	}
	return nil
}

// takenSnapshot is one that stays open while the history goes on.
type takenSnapshot struct {
	snap *db.Snapshot
	want state
}

// takeSnapshot takes another one, and lets go of the oldest of three.
func (s *session) takeSnapshot() error {
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	s.snapshots = append(s.snapshots, takenSnapshot{snap, s.ref.now()})
	if len(s.snapshots) < 3 {
		return nil
	}
	oldest := s.snapshots[0]
	s.snapshots = s.snapshots[1:]
	return errors.Join(s.checkSnapshot(oldest.snap, oldest.want), oldest.snap.Close())
}

// closeReaders ends everything that is open beside the store.
func (s *session) closeReaders() error {
	var errs []error
	for _, t := range s.snapshots {
		errs = append(errs, s.checkSnapshot(t.snap, t.want), t.snap.Close())
	}
	s.snapshots = nil
	return errors.Join(append(errs, s.unfollow())...)
}

// checkSnapshot compares a snapshot key by key and in every direction.
func (s *session) checkSnapshot(snap *db.Snapshot, want state) error {
	found, err := s.read(snap.Get)
	if err != nil || found != want {
		return fmt.Errorf("snapshot finds %v, should be %v (%v)", found, want, err)
	}
	if snap.Len() != want.len() {
		return fmt.Errorf("snapshot has length %d, should be %d", snap.Len(), want.len())
	}
	sorted := sortedKeys(want)
	for name, c := range map[string]struct {
		entries iter.Seq2[[]byte, db.Entry]
		want    []int
	}{
		"All":      {snap.All(), sorted},
		"Backward": {snap.Backward(nil, nil), reversed(sorted)},
		"Range":    {snap.Range([]byte("a\x00"), []byte("b")), between(sorted, "a\x00", "b")},
		"Downward": {snap.Backward([]byte("ab"), []byte("shared/c")), reversed(between(sorted, "ab", "shared/c"))},
		"Prefix a": {snap.Prefix([]byte("a"), nil), between(sorted, "a", "b")},
		"Prefix ff": {snap.Prefix([]byte("\xff"), []byte("\xff\x01")),
			between(sorted, "\xff\x01", "\xff\xff\xff")},
	} {
		if err := s.checkEntries(c.entries, c.want, want); err != nil {
			return fmt.Errorf("snapshot.%s: %w", name, err)
		}
	}
	return nil
}

// checkEntries compares an iteration with the keys it should yield.
func (s *session) checkEntries(entries iter.Seq2[[]byte, db.Entry], order []int, want state) error {
	i := 0
	for key, e := range entries {
		if e.Err() != nil {
			return e.Err()
		}
		if i == len(order) || string(key) != keys[order[i]] {
			return fmt.Errorf("entry %d is %q, the keys are %v", i, key[:min(len(key), 40)], order)
		}
		b, err := e.Bytes()
		if err != nil || !bytes.Equal(b, s.ref.values[want[order[i]]]) {
			return fmt.Errorf("entry %d has %d bytes, should be v%d (%v)", i, len(b), want[order[i]], err)
		}
		m, err := e.Metadata()
		if err := checkMetadata(m, want[order[i]], err); err != nil {
			return err
		}
		i++
	}
	if i < len(order) {
		return fmt.Errorf("ends after %d entries, the keys are %v", i, order)
	}
	return nil
}

// sortedKeys are the keys that have values, in order.
func sortedKeys(s state) (list []int) {
	for k, v := range s {
		if v != 0 {
			list = append(list, k)
		}
	}
	slices.SortFunc(list, func(a, b int) int { return strings.Compare(keys[a], keys[b]) })
	return list
}

func reversed(list []int) []int {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

func between(list []int, start, end string) []int {
	return slices.DeleteFunc(slices.Clone(list), func(k int) bool { return keys[k] < start || keys[k] >= end })
}
