//go:build unix

package db

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment/vfs"
)

// TestMessages promises of what calls that fail say: the whole of it, so that
// nothing is missing, misnamed or there twice.
func TestMessages(t *testing.T) {
	dir := t.TempDir()
	none, empty := filepath.Join(dir, "none"), t.TempDir()
	db := open(t, filepath.Join(dir, "store"), &Options{SegmentSize: minSegmentSize})
	mustPut(t, db, "k", "v")
	value, closed := mustValue(t, db, "k"), mustValue(t, db, "k")
	closed.Close()
	snapshot, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string, is, err error) {
		t.Helper()
		if err == nil || !errors.Is(err, is) || strings.ReplaceAll(err.Error(), dir, "DIR") != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	fail := func(_ any, err error) error { return err }

	expect(`open: the name of the directory is empty`, ErrInvalid, fail(Open("", nil)))
	expect(`open: the name of the directory is empty`, ErrInvalid, fail(Open("", &Options{ReadOnly: true})))
	expect(`open DIR/none: no such file or directory`, fs.ErrNotExist, fail(Open(none, &Options{ReadOnly: true})))
	expect(`mkdir DIR/none/x: no such file or directory`, fs.ErrNotExist, fail(Open(filepath.Join(none, "x"), nil)))
	expect(`open DIR/none: Options.Sync is 99, it must be SyncDefault, SyncAlways, SyncInterval or SyncNever`, ErrInvalid, fail(Open(none, &Options{Sync: 99})))
	expect(`lock DIR/store/LOCK: locked by another writer: this process`, ErrLocked, fail(Open(filepath.Join(dir, "store"), nil)))
	expect(`open "": invalid argument`, fs.ErrInvalid, fail(check.Verify(t.Context(), "", nil)))
	expect(`open "": invalid argument`, fs.ErrInvalid, fail(check.Repair(t.Context(), "", nil)))
	expect(`open DIR/none: no such file or directory`, fs.ErrNotExist, fail(check.Verify(t.Context(), none, nil)))
	expect(`open DIR/none: no such file or directory`, fs.ErrNotExist, fail(check.Repair(t.Context(), none, nil)))
	fsys, err := vfs.OpenDir(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	expect(`open DIR/MANIFEST-00000000000000ff: no such file or directory`, fs.ErrNotExist, fail(manifest.Read(fsys, []string{"MANIFEST-00000000000000ff"})))
	if err := fail(check.Verify(t.Context(), empty, nil)); err == nil || err.Error() != "there is no store in "+empty {
		t.Error(err)
	}

	expect(`get "x": key not found`, ErrNotFound, fail(db.Get(nil, []byte("x"))))
	expect(`get "": key must have 1 to 65535 bytes`, ErrInvalid, fail(db.Get(nil, nil)))
	expect(`view "": key must have 1 to 65535 bytes`, ErrInvalid, db.View(nil, nil))
	expect(`lend "": key must have 1 to 65535 bytes`, ErrInvalid, db.Lend(nil, nil))
	expect(`value "": key must have 1 to 65535 bytes`, ErrInvalid, fail(db.Value(nil)))
	expect(`delete "x": key not found`, ErrNotFound, db.Delete([]byte("x"), nil))
	expect(`put "k": precondition failed`, ErrPrecondition, db.Put([]byte("k"), nil, &PutOptions{IfAbsent: true}))
	expect(`put "k": value is not as long as it was said to be: 3 bytes, not 5`, ErrSize,
		fail(db.PutReader(t.Context(), []byte("k"), strings.NewReader("abc"), 5, nil)))

	expect(`value "k": range 0+9 lies outside its 1 bytes`, ErrInvalid, fail(value.Range(0, 9)))
	expect(`value "k": range -1+1 lies outside its 1 bytes`, ErrInvalid, fail(value.Extent(-1, 1)))
	expect(`value "k": range 1+1 lies outside its 1 bytes`, ErrInvalid,
		db.Lend([]byte("k"), func(v Lent) error { return fail(v.Range(1, 1)) }))
	expect(`value "k": negative offset -1`, ErrInvalid, fail(value.ReadAt(make([]byte, 1), -1)))
	expect(`value "k": can't seek to -1`, ErrInvalid, fail(value.Seek(-1, 0)))
	expect(`value "k": seek with whence 7, it must be 0 to 2`, ErrInvalid, fail(value.Seek(0, 7)))
	expect(`value "k": the handle is closed`, ErrClosed, fail(closed.Bytes()))
	expect(`value "k": the handle is closed`, ErrClosed, fail(closed.Metadata()))

	expect(`get "": key must have 1 to 65535 bytes`, ErrInvalid, fail(snapshot.Get(nil, nil)))
	expect(`view "x": key not found`, ErrNotFound, snapshot.View([]byte("x"), nil))
	snapshot.Close()
	expect(`get "k": snapshot is closed`, ErrClosed, fail(snapshot.Get(nil, []byte("k"))))
	for _, e := range snapshot.All() {
		expect(`snapshot is closed`, ErrClosed, e.Err())
	}

	value.Close()
	closeNow(t, db)
	expect(`put "k": store is closed`, ErrClosed, db.Put([]byte("k"), nil, nil))
	expect(`get "k": store is closed`, ErrClosed, fail(db.Get(nil, []byte("k"))))
	expect(`store is closed`, ErrClosed, fail(db.Snapshot()))
	expect(`store is closed`, ErrClosed, fail(db.Verify(t.Context(), nil)))
}
