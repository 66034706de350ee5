package main

import (
	"bytes"
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

// readValue reads all of r, which should have size bytes. More than a value can
// have is an error as early as it can be known.
func readValue(r io.Reader, size int64) ([]byte, error) {
	if size > db.MaxValue {
		return nil, db.ErrValueTooLarge
	}
	var b bytes.Buffer
	b.Grow(int(size) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(r, db.MaxValue+1)); err != nil {
		return nil, err
	}
	if b.Len() > db.MaxValue {
		return nil, db.ErrValueTooLarge
	}
	return b.Bytes(), nil
}

// contentType goes by the extension of a file name or key.
func contentType(name string) string {
	return mime.TypeByExtension(path.Ext(name))
}
