package db

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// A large value that was removed is closed by the very collection that finds that
// nobody holds it, though it was read a moment ago: nobody would force another one,
// since nothing is pinned any more. Method: no collection comes by itself.
func TestRemovedBlobIsClosed(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	dir := t.TempDir()
	db := openImpatient(t, dir, Options{})
	large := randomBytes(1 << 20)
	mustPut(t, db, "large", string(large))
	mustGet(t, db, "large", string(large))
	mustPut(t, db, "large", "small")
	compactAll(t, db)
	if n := openBlobsIn(dir); n == 0 {
		t.Error("the cache does not keep it open")
	}
	for i := 0; len(db.pinned.held()) > 0; i++ {
		if runtime.GC(); i == 100 {
			t.Fatal("the segment stays")
		}
	}
	for deadline := time.Now().Add(20 * time.Second); openBlobsIn(dir) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q", openFiles(dir))
		}
	}
}

// openBlobsIn counts descriptors and mappings.
func openBlobsIn(dir string) (n int) {
	for _, name := range openFiles(dir) {
		if strings.Contains(name, ".blob") {
			n++
		}
	}
	return n
}
