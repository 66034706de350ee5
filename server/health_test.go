package server

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// probe asks both and returns what /-/readyz has to say. /-/healthz is always well.
func probe(t *testing.T, h *Handler, status int) (line string) {
	t.Helper()
	if w := ask(h, "GET", "/-/healthz", http.Header{}, ""); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("healthz: %d %q", w.Code, w.Body)
	}
	w := ask(h, "GET", "/-/readyz", http.Header{}, "")
	if w.Code != status || w.Header().Get("Content-Type") != plainText {
		t.Errorf("readyz: %d, want %d: %v %q", w.Code, status, w.Header(), w.Body)
	}
	return w.Body.String()
}

// TestReady: a server is ready until it shuts down, its store is closed or takes
// no more writes. Clients are told, without the names of files, and the log is
// told once. Method: a disk on which a sync fails.
func TestReady(t *testing.T) {
	disk := simdisk.New()
	store, err := db.Open("", &db.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	put(t, store, "k", []byte("v"), nil)
	var log logText
	h := NewHandler(store, &Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	writes := disk.Count(simdisk.OpWriteVec)
	if got := probe(t, h, 200); got != "ready\n" {
		t.Errorf("%q", got)
	}
	if disk.Count(simdisk.OpWriteVec) != writes {
		t.Error("a probe has written")
	}

	disk.Fail(func(op, _ string, _ int) error {
		if op == simdisk.OpDatasync {
			return syscall.EIO
		}
		return nil
	})
	store.Put([]byte("k"), []byte("w"), nil)
	disk.Fail(nil)
	for range 3 {
		if got := probe(t, h, 503); !strings.Contains(got, "opened again") || strings.Contains(got, "EIO") {
			t.Errorf("%q", got)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, syscall.EIO.Error()) {
		t.Errorf("log %q", got)
	}
	if w := ask(h, "GET", "/k", http.Header{}, ""); w.Body.String() != "v" {
		t.Errorf("reads do not go on: %d", w.Code)
	}

	store.Close()
	if got := probe(t, h, 503); got != "store is closed\n" {
		t.Errorf("%q", got)
	}
}

func TestNotReadyInShutdown(t *testing.T) {
	s := New(openStore(t), nil)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := probe(t, s.handler, 503); got != "the server is shutting down\n" {
		t.Errorf("%q", got)
	}
}
