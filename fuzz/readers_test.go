package fuzz

import (
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/db"
)

// read asks for every key and returns what the store contains. get is the Get
// of a store or snapshot.
func (s *session) read(get func(dst, key []byte) ([]byte, error)) (found state, err error) {
	var buf []byte
	for k := range keys[:s.keys] {
		buf, err = get(buf[:0], keyBytes[k])
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
		if err := s.checkKey(s.store, k, want[k]); err != nil {
			return fmt.Errorf("key %d: %w", k, err)
		}
	}
	snap, err := s.store.Snapshot()
	if err != nil {
		return err
	}
	return errors.Join(s.checkHandles(1), s.checkSnapshot(snap, want), snap.Close())
}

// checkHandles compares what the store says about open handles; more snapshots
// are open than those of the history.
func (s *session) checkHandles(more int) error {
	stats, values, snapshots := s.store.Stats(), len(s.values), len(s.snapshots)+more
	if stats.Values != values || stats.Snapshots != snapshots || len(stats.Handles) != values+snapshots {
		return fmt.Errorf("Stats counts %d values and %d snapshots, open are %d and %d",
			stats.Values, stats.Snapshots, values, snapshots)
	}
	return nil
}

// takenSnapshot is one that stays open while the history goes on.
type takenSnapshot struct {
	snap *db.Snapshot
	want state
}

// takeSnapshot takes another one, and lets go of the oldest of three.
func (s *session) takeSnapshot(operation) error {
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
	for _, h := range s.values {
		errs = append(errs, s.checkValue(h.value, h.want), h.value.Close())
	}
	s.snapshots, s.values = nil, nil
	return errors.Join(append(errs, s.unfollow())...)
}

// outlived are the readers that stay open when their store is closed, while the
// history goes on with the next run.
type outlived struct {
	values    []heldValue
	snapshots []takenSnapshot
}

// outlive lets the readers of a store that was closed stay open, in place of those
// from earlier. They are looked at when these go: what was read before is in memory.
func (s *session) outlive() error {
	err := errors.Join(s.closeOutlived(), s.unfollow())
	s.outlived = outlived{s.values, s.snapshots}
	s.values, s.snapshots = nil, nil
	return err
}

// checkOutlived compares what the readers of closed stores see. A Value has its
// bytes. A snapshot has those of each value, or has expired as far as that goes,
// if a later run has removed the file.
func (s *session) checkOutlived() error {
	for _, h := range s.outlived.values {
		if err := s.checkValue(h.value, h.want); err != nil {
			return fmt.Errorf("after Close: %w", err)
		}
	}
	for _, t := range s.outlived.snapshots {
		for k := range keys[:s.keys] {
			var found uint16
			b, err := t.snap.Get(nil, keyBytes[k])
			switch {
			case errors.Is(err, db.ErrSnapshotExpired):
				s.seen.note(sawOutlivedExpire)
				continue
			case err == nil:
				found, err = s.ref.number(b)
			case errors.Is(err, db.ErrNotFound):
				err = nil
			}
			if err != nil || found != t.want[k] {
				return fmt.Errorf("after Close, a snapshot finds v%d for key %d, should be v%d (%v)", found, k, t.want[k], err)
			}
		}
	}
	return nil
}

func (s *session) closeOutlived() error {
	err := s.checkOutlived()
	for _, t := range s.outlived.snapshots {
		err = errors.Join(err, t.snap.Close())
	}
	for _, h := range s.outlived.values {
		err = errors.Join(err, h.value.Close())
	}
	s.outlived = outlived{}
	return err
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
	for k := range keys[:s.keys] {
		if err := s.checkKey(snap, k, want[k]); err != nil {
			return fmt.Errorf("snapshot, key %d: %w", k, err)
		}
	}
	for _, l := range listings {
		if err := s.checkListing(snap, want, l, -1); err != nil {
			return err
		}
	}
	return nil
}
