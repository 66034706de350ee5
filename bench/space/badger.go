package main

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
)

type badgerStore struct{ *badger.DB }

// openBadger has the defaults: values of this size lie in the tables.
func openBadger(dir string, _ config) (store, error) {
	s, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
	return badgerStore{s}, err
}

// openBadgerLog has them in the value log.
func openBadgerLog(dir string, _ config) (store, error) {
	s, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithValueThreshold(valueSize / 4))
	return badgerStore{s}, err
}

func (s badgerStore) write(list []change) error {
	b := s.NewWriteBatch()
	defer b.Cancel()
	for _, c := range list {
		var err error
		if c.value == nil {
			err = b.Delete(c.key)
		} else {
			err = b.Set(c.key, c.value)
		}
		if err != nil {
			return err
		}
	}
	return b.Flush()
}

func (s badgerStore) view(key []byte, fn func([]byte) error) error {
	return s.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return errAbsent
		}
		if err != nil {
			return err
		}
		return item.Value(fn)
	})
}

func (s badgerStore) compact() error {
	const workers, worthIt = 2, 0.5
	err := s.Flatten(workers)
	for err == nil {
		err = s.RunValueLogGC(worthIt)
	}
	if errors.Is(err, badger.ErrNoRewrite) {
		return nil
	}
	return err
}

func (s badgerStore) close() error { return s.Close() }
