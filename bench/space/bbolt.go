package main

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

type bolt struct {
	*bbolt.DB
	dir string
}

var (
	boltBucket  = []byte("bucket")
	boltOptions = &bbolt.Options{NoSync: true, FreelistType: bbolt.FreelistMapType}
)

func openBolt(dir string, _ config) (store, error) {
	s, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o666, boltOptions)
	if err != nil {
		return nil, err
	}
	err = s.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(boltBucket)
		return err
	})
	return &bolt{s, dir}, err
}

func (s *bolt) write(list []change) error {
	return s.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(boltBucket)
		for _, c := range list {
			var err error
			if c.value == nil {
				err = b.Delete(c.key)
			} else {
				err = b.Put(c.key, c.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *bolt) view(key []byte, fn func([]byte) error) error {
	return s.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(boltBucket).Get(key)
		if value == nil {
			return errAbsent
		}
		return fn(value)
	})
}

// compact copies into a new file and goes on with that.
func (s *bolt) compact() error {
	const inOneTransaction = 16 << 20
	from, to := s.Path(), filepath.Join(s.dir, "compacted")
	fresh, err := bbolt.Open(to, 0o666, boltOptions)
	if err != nil {
		return err
	}
	if err := bbolt.Compact(fresh, s.DB, inOneTransaction); err != nil {
		return errors.Join(err, fresh.Close())
	}
	err = errors.Join(s.Close(), os.Remove(from))
	s.DB = fresh
	return err
}

func (s *bolt) close() error { return s.Close() }
