package main

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

type pebbleStore struct{ *pebble.DB }

func openPebble(dir string, _ config) (store, error) {
	s, err := pebble.Open(dir, &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       64 << 20, // the default, 4 MiB, is for tests
		Logger:             silent{},
	})
	return pebbleStore{s}, err
}

// silent has pebble say nothing of its doings.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, _ ...any) { panic(format) }

func (s pebbleStore) write(list []change) error {
	b := s.NewBatch()
	defer b.Close()
	for _, c := range list {
		var err error
		if c.value == nil {
			err = b.Delete(c.key, nil)
		} else {
			err = b.Set(c.key, c.value, nil)
		}
		if err != nil {
			return err
		}
	}
	return b.Commit(pebble.NoSync)
}

func (s pebbleStore) view(key []byte, fn func([]byte) error) error {
	value, done, err := s.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return errAbsent
	}
	if err != nil {
		return err
	}
	return errors.Join(fn(value), done.Close())
}

// compact includes what is in memory still. Keys are hexadecimal digits.
func (s pebbleStore) compact() error {
	if err := s.Flush(); err != nil {
		return err
	}
	return s.Compact(context.Background(), []byte("0"), []byte("g"), true)
}

func (s pebbleStore) close() error { return s.Close() }
