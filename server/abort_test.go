package server

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// abortParts is at how many places a transfer is broken off.
const abortParts = 64

// abortBlob is the size from which values have files of their own here.
const abortBlob = 300 << 10

// abortSizes are sizes of values that go their own ways in and out: on the fast
// path, by writev or sendfile, through memory and to a file.
func abortSizes(file int) []int {
	sizes := []int{1000, 60_000, abortBlob - 20_000, file}
	if os.Getenv("CROWFLY_FULL") == "1" {
		sizes = append(sizes, 5<<20, 33<<20)
	}
	return sizes
}

// download is a response that is broken off.
type download struct {
	value []byte // at the path that is its length
	spans []span // of it, if not all
}

// downloads leave by writev and by sendfile, whole and in several parts.
func downloads() (list []download) {
	for i, n := range abortSizes(1 << 20) {
		value := noise(n, byte(i))
		list = append(list, download{value: value})
		var mapped, files []span
		for k := range int64(maxRanges) {
			mapped = append(mapped, span{k * int64(n) / maxRanges, min(int64(n)/maxRanges-1, sendfileMin-1)})
		}
		for k := range int64(3) {
			files = append(files, span{k * int64(n) / 3, int64(n)/3 - 1})
		}
		if n >= 1<<20 {
			list = append(list, download{value, mapped}, download{value, files})
		}
	}
	return list
}

// wantBody is all of the body.
func (d download) wantBody(t *testing.T, header http.Header) []byte {
	t.Helper()
	if d.spans == nil {
		return d.value
	}
	_, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		t.Fatalf("%v %v", header, err)
	}
	var b bytes.Buffer
	for _, s := range d.spans {
		fmt.Fprintf(&b, "--%s\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes %d-%d/%d\r\n\r\n", params["boundary"], s.off, s.off+s.n-1, len(d.value))
		b.Write(d.value[s.off : s.off+s.n])
		b.WriteString("\r\n")
	}
	return fmt.Appendf(b.Bytes(), "--%s--\r\n", params["boundary"])
}

// TestAbortedDownloads: a client goes away after every 64th of a response, with a
// reset or by closing its half. What it has got until then is right, and whoever
// has only closed its half gets the rest. Nothing stays open, as long as the
// server goes on. Method: buffers are so small that the server is in the middle of
// the large ones when it hears of it, and must have counted those.
func TestAbortedDownloads(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: abortBlob})
	list := downloads()
	for _, d := range list {
		put(t, store, fmt.Sprint(len(d.value)), d.value, nil)
	}
	for _, slow := range []bool{false, true} {
		s := New(store, &Options{Log: failOnError(t)})
		s.slow = slow
		l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
		if err != nil {
			t.Fatal(err)
		}
		addr := serveUntilEnd(t, s, smallBuffers{l, 64 << 10})
		for _, d := range list {
			abortDownload(t, addr, d, abortParts, false) // which has all files opened
		}
		noneLeft(t, s, store)
		before := openDescriptors()
		large := uint64(0)
		for _, d := range list {
			for part := range abortParts + 1 {
				for _, reset := range []bool{false, true} {
					abortDownload(t, addr, d, part, reset)
				}
			}
			if len(d.value) > abortBlob {
				large++
			}
		}
		noneLeft(t, s, store)
		if n := s.Stats().Aborted; n < large*abortParts/2 {
			t.Errorf("slow %v: %d are aborted, want half of %d at least", slow, n, large*abortParts)
		}
		eventually(t, fmt.Sprintf("%d descriptors, as before", before), func() bool { return openDescriptors() <= before })
		dial(t, addr).do("GET", "/1000", "").wantBody(t, noise(1000, 0))
	}
}

func abortDownload(t *testing.T, addr string, d download, part int, reset bool) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	ranges := ""
	if d.spans != nil {
		ranges = "Range: " + rangesOf(d.spans) + "\r\n"
	}
	c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: localhost\r\n%s\r\n", len(d.value), ranges))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := d.wantBody(t, resp.Header)
	after := len(want) * part / abortParts
	got := make([]byte, after)
	if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.HasPrefix(want, got) {
		t.Fatalf("%d bytes of %d: %v", after, len(want), err)
	}
	if reset {
		c.SetLinger(0)
		return
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(rest, want[after:]) {
		t.Errorf("%d of %d bytes after the other half was closed: %v", len(rest), len(want)-after, err)
	}
}

// noneLeft waits until a server has no connections, and nothing of the store is
// open.
func noneLeft(t *testing.T, s *Server, store *db.DB) {
	t.Helper()
	eventually(t, "no connections", func() bool { return len(s.slots) == 0 })
	noHandles(t, store)
}

// openDescriptors is how many this process has, where the system tells.
func openDescriptors() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

// abortedPut is a PUT that is broken off.
type abortedPut struct {
	value   []byte
	part    int // after which it is broken off
	chunked bool
	reset   bool
}

func (u abortedPut) key() string { return fmt.Sprintf("%d/%d/%v", len(u.value), u.part, u.reset) }

// old is what is there before, or nothing.
func (u abortedPut) old() []byte {
	if u.part%2 == 0 {
		return noise(100, 99)
	}
	return nil
}

func abortedPuts(chunked bool) (list []abortedPut) {
	for i, n := range abortSizes(abortBlob + 20_000) {
		value := noise(n, byte(i))
		for part := range abortParts + 1 {
			list = append(list, abortedPut{value, part, chunked, false}, abortedPut{value, part, chunked, true})
		}
	}
	return list
}

// TestAbortedUploads: a client goes away after every 64th of a body, with a reset
// or by closing its half. Nothing of it is stored, and what was there before is
// there still, meanwhile and at the end; only of a body that was sent to its end
// may all be there, and must be if the client has only closed its half. No file,
// descriptor or memory stays behind, as long as the server goes on.
func TestAbortedUploads(t *testing.T) {
	for _, slow := range []bool{false, true} {
		for _, chunked := range []bool{false, true} {
			dir := t.TempDir()
			store := openStoreIn(t, dir, &db.Options{BlobSize: abortBlob})
			list := abortedPuts(chunked)
			for _, u := range list {
				if u.old() != nil {
					put(t, store, u.key(), u.old(), nil)
				}
			}
			s, addr := start(t, store, &Options{Log: failOnError(t)}, func(s *Server) { s.slow = slow })
			c := dial(t, addr)
			c.do("GET", "/none", "").wantStatus(t, 404) // so the server has all that it needs
			c.Close()
			noneLeft(t, s, store)
			before := openDescriptors()
			for _, u := range list {
				u.send(t, addr, store)
			}
			eventually(t, "all are counted", func() bool {
				p := s.Stats().Put
				return p.Success+p.ClientError+p.ServerError == uint64(len(list))
			})
			if n := s.Stats().Put.ServerError; n > 0 {
				t.Errorf("%d failures of the server", n)
			}
			noneLeft(t, s, store)
			eventually(t, "all memory is given back", func() bool { return s.handler.inFlight.used.Load() == 0 })
			eventually(t, fmt.Sprintf("%d descriptors, as before", before), func() bool { return openDescriptors() <= before })
			blobs := 0
			for _, u := range list {
				if u.wantWholeOrNothing(t, store) && len(u.value) >= abortBlob {
					blobs++
				}
			}
			if names := blobFiles(t, dir); len(names) != blobs {
				t.Errorf("slow %v, chunked %v: %d files for %d values", slow, chunked, len(names), blobs)
			}
		}
	}
}

func (u abortedPut) send(t *testing.T, addr string, store *db.DB) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	head, end := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(u.value)), ""
	if u.chunked {
		head, end = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(u.value)), "\r\n0\r\n\r\n"
	}
	c.send("PUT /" + u.key() + " HTTP/1.1\r\nHost: localhost\r\n" + head + string(u.value[:len(u.value)*u.part/abortParts]))
	if u.part == abortParts {
		c.send(end)
	} else if got, err := store.Get(nil, []byte(u.key())); !bytes.Equal(got, u.old()) {
		t.Errorf("%s: %d bytes while it comes, %v", u.key(), len(got), err)
	}
	if u.reset {
		c.SetLinger(0)
		return
	}
	c.CloseWrite()
	if got := c.receive("PUT"); (got.StatusCode < 300) != (u.part == abortParts) {
		t.Errorf("%s: %s", u.key(), got.Status)
	}
}

// wantWholeOrNothing looks at what is there after send, and reports whether all
// of the value is.
func (u abortedPut) wantWholeOrNothing(t *testing.T, store *db.DB) (whole bool) {
	t.Helper()
	got, err := store.Get(nil, []byte(u.key()))
	if u.part == abortParts && bytes.Equal(got, u.value) {
		return true
	}
	if !bytes.Equal(got, u.old()) || u.part == abortParts && !u.reset {
		t.Errorf("%s: %d bytes, %v", u.key(), len(got), err)
	}
	return false
}
