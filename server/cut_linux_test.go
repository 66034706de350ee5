package server

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// cut takes the second half of a value away from its file, behind the back of
// the store, as if the disk could not read it any more.
func cut(t *testing.T, store *db.DB, key string) {
	t.Helper()
	v, err := store.Value([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	extent, err := v.Extent(0, v.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(extent.File.OS().Name(), extent.Offset+extent.Length/2); err != nil {
		t.Fatal(err)
	}
}

// TestCutFileIsNotPadded: what the file does not have any more can't be sent,
// and client and log learn that.
func TestCutFileIsNotPadded(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	var log logText
	s, addr := start(t, store, &Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	c := dial(t, addr)
	c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := c.in.ReadByte(); err != nil { // it has begun, and will fill the buffers
		t.Fatal(err)
	}
	cut(t, store, "large")
	if got, err := io.Copy(io.Discard, c.in); got > 17<<20 {
		t.Errorf("got %d bytes, %v", got, err)
	}
	eventually(t, "the transfer is aborted", func() bool { return s.Stats().Aborted == 1 })
	noHandles(t, store)
	if !strings.Contains(log.String(), "response cut off") {
		t.Errorf("log: %q", &log)
	}
}

// TestFaultKillsNobody: whoever reads the mapping now gets a fault. (Under the
// race detector the mapping is a copy, and all is well.)
func TestFaultKillsNobody(t *testing.T) {
	store := openStore(t)
	value := noise(1<<20, 1)
	put(t, store, "k", value, nil)
	server := httptest.NewUnstartedServer(NewHandler(store, nil))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	cut(t, store, "k")
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r, err := http.NewRequest(method, server.URL+"/k", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(r)
		if err != nil {
			continue // cut off before the header
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusInternalServerError {
			continue
		}
		if err == nil && method == http.MethodGet && !bytes.Equal(got, value) {
			t.Errorf("got %d other bytes and no error", len(got))
		}
	}
}

// TestFaultOnFastPath: so it is there, for values that were verified before the
// file was cut and for those that were not. In the end another value is served.
func TestFaultOnFastPath(t *testing.T) {
	for _, n := range []int{9000, 200_000} { // by writev and by sendfile
		for _, verified := range []bool{true, false} {
			store := openStore(t)
			put(t, store, "good", []byte("v"), nil)
			value := noise(n, 1)
			put(t, store, "k", value, nil)
			s, addr := start(t, store, &Options{Log: quiet()})
			if verified {
				dial(t, addr).do("GET", "/k", "").wantBody(t, value)
			}
			truncate(t, store, "k")
			for _, method := range []string{"GET", "HEAD", "GET"} {
				c := dial(t, addr)
				c.send(method + " /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
				resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
				if err != nil {
					continue // cut off before the header
				}
				got, err := io.ReadAll(resp.Body)
				if resp.StatusCode == 200 && err == nil && method == "GET" && !bytes.Equal(got, value) {
					t.Errorf("got %d other bytes and no error", len(got))
				}
			}
			c := dial(t, addr)
			c.do("GET", "/good", "").wantBody(t, []byte("v"))
			if s.Stats().HandedOver != 0 {
				t.Error("not all on the fast path")
			}
		}
	}
}

// truncate is cut, without a look at the value.
func truncate(t *testing.T, store *db.DB, key string) {
	t.Helper()
	err := store.Lend([]byte(key), func(v db.Lent) error {
		extent := v.Extent()
		return os.Truncate(extent.File.OS().Name(), extent.Offset+extent.Length/2)
	})
	if err != nil {
		t.Fatal(err)
	}
}
