//go:build !race

package server

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// carefulLeader is a flood that knows how often its goroutine has waited for a page
// from disk when it ceases to lead.
type carefulLeader struct {
	flood
	waited int64
}

func (f *carefulLeader) resident(p []byte) bool { return vfs.Resident(p) }

func (f *carefulLeader) mayWait() {
	if f.leader {
		f.waited = majorFaults()
	}
	f.leader = false
}

// TestColdRecord: a leader does not wait for a record that is not in memory, another
// goroutine leads first; and on either path it is brought in with a system call.
// Method: the kernel is told to forget all and to read nothing ahead. It counts the
// pages that the leader waits for. The value is in memory afterwards, though nobody
// has touched it.
func TestColdRecord(t *testing.T) {
	dir := t.TempDir()
	store, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	value := noise(9000, 1)
	put(t, store, "before", value, nil)
	put(t, store, "k", value, &db.Metadata{ContentType: "a/b"})
	put(t, store, "behind", value, nil)
	known(t, store, "k")
	s := New(store, nil)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	fast := func(what string, leads bool) {
		t.Helper()
		f := &carefulLeader{flood: flood{left: 1, leader: true}}
		c := s.fast.add(f, func() {}, &fastListener{fast: &s.fast})
		before := majorFaults()
		if !c.serve() || c.served != 1 || c.answer.status != http.StatusOK {
			t.Fatalf("%s: %d requests, status %d", what, c.served, c.answer.status)
		}
		if f.leader != leads {
			t.Errorf("%s: it leads: %v", what, f.leader)
		}
		if !leads && f.waited != before {
			t.Errorf("%s: it leads and waits for %d pages", what, f.waited-before)
		}
	}
	fast("in memory", true)
	record := forgetRecord(t, dir, store, "k", len(value))
	fast("forgotten", false)
	if !vfs.Resident(record) {
		t.Error("the fast path did not fetch the record")
	}
	fast("in memory again", true)

	for header, status := range map[string]int{"": http.StatusOK, "*": http.StatusNotModified} {
		forgetRecord(t, dir, store, "k", len(value))
		r := httptest.NewRequest("HEAD", "http://localhost/k", nil)
		r.Header.Set("If-None-Match", header)
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		if w.Code != status || !vfs.Resident(record) {
			t.Errorf("net/http did not fetch the record: status %d", w.Code)
		}
	}
}

// forgetRecord has the kernel forget what is in memory of the only segment. It
// returns memory of a record from its header on.
func forgetRecord(t *testing.T, dir string, store *db.DB, key string, n int) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	f, err := os.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var head unsafe.Pointer
	if err := store.LendResident([]byte(key), func(p []byte) bool { head = unsafe.Pointer(unsafe.SliceData(p)); return false }, nil); err != db.ErrNotResident {
		t.Fatal(err)
	}
	skew := int(uintptr(head) % 4096)
	pages := unsafe.Slice((*byte)(unsafe.Add(head, -skew)), skew+n)
	forget(t, f, pages)
	if err := unix.Madvise(pages, unix.MADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	if vfs.Resident(pages) {
		skip(t, "this file system keeps all files in memory")
	}
	return pages[skew:]
}

func majorFaults() int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		panic(err)
	}
	return int64(r.Majflt)
}
