package fuzz

import (
	"errors"
	"fmt"
	"slices"

	"github.com/crowfly/crowfly/db"
)

// follower is a read-only store beside the writer of a session.
type follower struct {
	store *db.DB
	base  int // it has seen at least so many of the commits since the writer's start
}

// follow opens a follower.
func (s *session) follow(operation) error {
	if err := s.unfollow(); err != nil {
		return err
	}
	var err error
	if s.follower.store, err = s.openReadOnly(); err != nil {
		return err
	}
	return s.checkFollower()
}

func (s *session) openReadOnly() (*db.DB, error) {
	opts := s.opts
	opts.ReadOnly, opts.FS = true, s.disk
	store, err := db.Open("", &opts)
	if err != nil {
		return nil, fmt.Errorf("read-only open: %w", err)
	}
	return store, nil
}

// refresh lets the follower look again. To the writer it is nothing.
func (s *session) refresh(op operation) error {
	if err := s.store.Refresh(); err != nil {
		return fmt.Errorf("refresh of the writer: %w", err)
	}
	if s.follower.store == nil {
		return s.follow(op)
	}
	if err := s.follower.store.Refresh(); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return s.checkFollower()
}

// checkFollower compares what a follower shows: the store after some commit,
// never an earlier one than last time, and all of it durable.
func (s *session) checkFollower() error {
	found, err := s.read(s.follower.store.Get)
	if err != nil {
		return fmt.Errorf("follower: %w", err)
	}
	if n := s.follower.store.Stats().Keys; n != found.len() {
		return fmt.Errorf("follower counts %d keys of %v", n, found)
	}
	if s.ref.open() > 0 {
		if possible := s.ref.possible(s.follower.base); !slices.Contains(possible, found) {
			return fmt.Errorf("follower finds %v, possible are %v", found, possible)
		}
		return nil
	}
	var possible []state
	at := s.ref.settled
	for i := 0; ; i++ {
		if i >= s.follower.base {
			possible = append(possible, at)
		}
		if i == len(s.ref.commits) {
			break
		}
		at = at.with(s.ref.commits[i])
	}
	i := slices.Index(possible, found)
	if i < 0 {
		return fmt.Errorf("follower finds %v, possible are %v", found, possible)
	}
	s.follower.base += i
	s.ref.durable = max(s.ref.durable, s.follower.base)
	return nil
}

// unfollow closes the follower.
func (s *session) unfollow() error {
	store := s.follower.store
	s.follower = follower{}
	if store == nil {
		return nil
	}
	return store.Close()
}

// checkReadOnly opens the store read-only while nobody writes. It shows what
// the next writer is going to find, and changes nothing.
func (s *session) checkReadOnly() (found state, err error) {
	before := s.changes()
	store, err := s.openReadOnly()
	if err != nil {
		return found, err
	}
	found, err = s.read(store.Get)
	if err == nil && s.changes() != before {
		err = errors.New("read-only open has written")
	}
	return found, errors.Join(err, store.Close())
}
