package main

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path"

	"github.com/crowfly/crowfly/db"
)

// checkKey refuses what no store can hold.
func checkKey(key string) error {
	if len(key) == 0 || len(key) > db.MaxKey {
		return fmt.Errorf("%w, this one has %d", db.ErrKeySize, len(key))
	}
	return nil
}

// openReader opens a store for reading only. It works beside a writer in
// another process and creates nothing.
func openReader(dir string) (*db.DB, error) {
	return db.Open(dir, &db.Options{ReadOnly: true})
}

// openWriter opens a store for writing and creates it if need be.
func openWriter(dir string) (*db.DB, error) {
	store, err := db.Open(dir, nil)
	if errors.Is(err, db.ErrLocked) {
		return nil, fmt.Errorf("%s is %w; is `crowfly serve` running? use curl -T FILE http://%s/KEY then",
			dir, db.ErrLocked, defaultListen)
	}
	return store, err
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

// contentType goes by the extension of a file name or key.
func contentType(name string) string {
	return mime.TypeByExtension(path.Ext(name))
}
