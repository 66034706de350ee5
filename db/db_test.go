package db

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func open(t *testing.T, dir string, o *Options) *DB {
	t.Helper()
	db, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mustGet(t *testing.T, db *DB, key, want string) {
	t.Helper()
	got, err := db.Get(nil, []byte(key))
	if err != nil || string(got) != want {
		t.Fatalf("Get(%q) = %.40q, %v; want %.40q", key, got, err, want)
	}
}

func mustPut(t *testing.T, db *DB, key, value string) {
	t.Helper()
	if err := db.Put([]byte(key), []byte(value), nil); err != nil {
		t.Fatal(err)
	}
}

func mustBeGone(t *testing.T, db *DB, key string) {
	t.Helper()
	if got, err := db.Get(nil, []byte(key)); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Get(%q) = %.40q, %v; want ErrNotFound", key, got, err)
	}
}

// Values survive reopening, deletes do too, and a read-only store sees both.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	big := string(bytes.Repeat([]byte("x"), 3<<20))
	for run := range 3 {
		db := open(t, dir, nil)
		if run > 0 {
			mustGet(t, db, "a", fmt.Sprint("value of run ", run-1))
			mustGet(t, db, "big", big)
		}
		mustPut(t, db, "a", fmt.Sprint("value of run ", run))
		mustPut(t, db, "b", "second")
		mustPut(t, db, "empty", "")
		mustPut(t, db, "big", big)
		mustGet(t, db, "a", fmt.Sprint("value of run ", run))
		mustGet(t, db, "empty", "")
		if err := db.Delete([]byte("b"), nil); err != nil {
			t.Fatal(err)
		}
		mustBeGone(t, db, "b")
		if err := db.Delete([]byte("b"), nil); !errors.Is(err, ErrNotFound) {
			t.Fatalf("second delete: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ro := open(t, dir, &Options{ReadOnly: true})
	mustGet(t, ro, "a", "value of run 2")
	mustBeGone(t, ro, "b")
}
