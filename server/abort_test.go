package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// abortParts is at how many places a transfer is broken off.
const abortParts = 64

// abortSizes are sizes of values that go their own ways in and out: on the fast
// path, through memory and to a file.
func abortSizes() []int {
	sizes := []int{1000, 60_000, 200_000, abortBlob + 100_000}
	if os.Getenv("CROWFLY_FULL") == "1" {
		sizes = append(sizes, 5<<20, 33<<20)
	}
	return sizes
}

// abortBlob is the size from which they have files of their own.
const abortBlob = 256 << 10

// TestAbortedDownloads: a client goes away after every 64th of a response, with a
// reset or by closing its half. What it has got until then is right, and whoever
// has only closed its half gets the rest. Nothing stays open.
func TestAbortedDownloads(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: abortBlob})
	for i, n := range abortSizes() {
		put(t, store, fmt.Sprint(n), noise(n, byte(i)), nil)
	}
	for _, slow := range []bool{false, true} {
		_, addr := start(t, store, &Options{Log: failOnError(t)}, func(s *Server) { s.slow = slow })
		for i, n := range abortSizes() {
			value := noise(n, byte(i))
			for part := range abortParts + 1 {
				for _, reset := range []bool{false, true} {
					abortDownload(t, addr, value, n*part/abortParts, reset)
				}
			}
		}
		dial(t, addr).do("GET", "/1000", "").wantBody(t, noise(1000, 0))
	}
}

func abortDownload(t *testing.T, addr string, value []byte, after int, reset bool) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n", len(value)))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, after)
	if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.HasPrefix(value, got) {
		t.Fatalf("%d bytes of %d: %v", after, len(value), err)
	}
	if reset {
		c.SetLinger(0)
		return
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(rest, value[after:]) {
		t.Errorf("%d of %d bytes after the other half was closed: %v", len(rest), len(value)-after, err)
	}
}

// TestAbortedUploads: a client goes away after every 64th of a body, with a reset
// or by closing its half. Nothing of it is stored, and what was there before is
// there still; only of a body that was sent to its end may all be there, and must
// be if the client has only closed its half. No file stays behind.
func TestAbortedUploads(t *testing.T) {
	for _, slow := range []bool{false, true} {
		for _, chunked := range []bool{false, true} {
			dir := t.TempDir()
			store := openStoreIn(t, dir, &db.Options{BlobSize: abortBlob})
			old := noise(100, 99)
			s, addr := start(t, store, &Options{Log: failOnError(t)}, func(s *Server) { s.slow = slow })
			requests := uint64(0)
			for i, n := range abortSizes() {
				value := noise(n, byte(i))
				for part := range abortParts + 1 {
					for _, reset := range []bool{false, true} {
						key := fmt.Sprintf("%d/%d/%v", n, part, reset)
						if part%2 == 0 {
							put(t, store, key, old, nil)
						}
						abortUpload(t, addr, key, value, n*part/abortParts, chunked, reset)
						requests++
					}
				}
			}
			eventually(t, "all are counted", func() bool {
				p := s.Stats().Put
				return p.Success+p.ClientError+p.ServerError == requests
			})
			if n := s.Stats().Put.ServerError; n > 0 {
				t.Errorf("%d failures of the server", n)
			}
			blobs := wantWholeOrNothing(t, store, old)
			if names := blobFiles(t, dir); len(names) != blobs {
				t.Errorf("slow %v, chunked %v: %d files for %d values", slow, chunked, len(names), blobs)
			}
		}
	}
}

func abortUpload(t *testing.T, addr, key string, value []byte, after int, chunked, reset bool) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	head, end := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(value)), ""
	if chunked {
		head, end = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(value)), "\r\n0\r\n\r\n"
	}
	text := "PUT /" + key + " HTTP/1.1\r\nHost: localhost\r\n" + head + string(value[:after])
	if after == len(value) {
		text += end
	}
	c.send(text)
	if reset {
		c.SetLinger(0)
		return
	}
	c.CloseWrite()
	if got := c.receive("PUT"); (got.StatusCode < 300) != (after == len(value)) {
		t.Errorf("%d of %d bytes: %s", after, len(value), got.Status)
	}
}

// wantWholeOrNothing looks at all that there may be after abortUpload, and returns
// how many values have files of their own.
func wantWholeOrNothing(t *testing.T, store *db.DB, old []byte) (blobs int) {
	t.Helper()
	for i, n := range abortSizes() {
		value := noise(n, byte(i))
		for part := range abortParts + 1 {
			for _, reset := range []bool{false, true} {
				key := fmt.Sprintf("%d/%d/%v", n, part, reset)
				got, err := store.Get(nil, []byte(key))
				switch stored := err == nil && bytes.Equal(got, value); {
				case part < abortParts && part%2 == 0 && !bytes.Equal(got, old), part < abortParts && part%2 == 1 && err == nil:
					t.Errorf("%s: %d bytes, %v", key, len(got), err)
				case part == abortParts && !stored && (!reset || !bytes.Equal(got, old)):
					t.Errorf("%s: sent to the end: %d bytes, %v", key, len(got), err)
				case stored && n >= abortBlob:
					blobs++
				}
			}
		}
	}
	return blobs
}
