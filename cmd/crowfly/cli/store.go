package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
)

// checkKey refuses what no store can hold.
func checkKey(key string) error {
	if len(key) == 0 || len(key) > db.MaxKey {
		return fmt.Errorf("%w, this one has %d", db.ErrKeySize, len(key))
	}
	return nil
}

// checkSize refuses what no store can hold.
func checkSize(n int64) error {
	if n > db.MaxValue {
		return fmt.Errorf("%w of %d bytes: it has %d", db.ErrValueTooLarge, int64(db.MaxValue), n)
	}
	return nil
}

// openReader opens a store for reading only. It works beside a writer in
// another process and creates nothing. A directory that no writer has ever
// opened is no store: a backup of the wrong path must not look like one of an
// empty store.
func openReader(dir string) (*db.DB, error) {
	return openReaderWith(dir, &db.Options{ReadOnly: true})
}

func openReaderWith(dir string, o *db.Options) (*db.DB, error) {
	store, err := db.Open(dir, o)
	if err != nil || store.Stats().Generation > 0 {
		return store, err
	}
	if _, err := os.Stat(filepath.Join(dir, segment.LockName)); err != nil {
		return nil, errors.Join(fmt.Errorf("there is no store in %s", dir), store.Close())
	}
	return store, nil
}

// openWriter opens a store for writing and creates it if need be.
func openWriter(dir string) (*db.DB, error) { return openWriterWith(dir, nil) }

func openWriterWith(dir string, o *db.Options) (*db.DB, error) {
	store, err := db.Open(dir, o)
	if errors.Is(err, db.ErrLocked) {
		return nil, inUse(dir, err, fmt.Sprintf("is `crowfly serve` running? use curl -T FILE http://%s/KEY then", defaultListen))
	}
	return store, err
}

// inUse says who has a store open, as far as err does, and what to do about it.
func inUse(dir string, err error, advice string) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	return fmt.Errorf("%s is %w; %s", dir, err, advice)
}

// openExisting is openWriter for a store that has to be there.
func openExisting(dir string) (*db.DB, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	return openWriter(dir)
}

// closeAfter closes at the end of a command, for defer. An error counts unless
// the command has one already.
func closeAfter(c io.Closer, err *error) {
	if cerr := c.Close(); *err == nil {
		*err = cerr
	}
}

// presentVersion is the version of a key's value, zero if it has none.
func presentVersion(store *db.DB, key []byte) (db.Version, error) {
	v, err := store.Value(key)
	if errors.Is(err, db.ErrNotFound) {
		return db.Version{}, nil
	}
	if err != nil {
		return db.Version{}, err
	}
	defer v.Close()
	return v.Version(), nil
}
