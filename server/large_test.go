package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// blobFiles are the names in a store's directory that are of values in files
// of their own, finished or not.
func blobFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".blob") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestLargeValue: 40 MiB of unknown length go in, and come back whole and in
// parts, from the file.
func TestLargeValue(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{})
	s, addr := start(t, store, &Options{Log: failOnError(t)})
	c := dial(t, addr)
	value := noise(40<<20, 1)
	upload(c, "k", value, true).wantStatus(t, 201)
	if names := blobFiles(t, dir); len(names) != 1 {
		t.Errorf("blob files %v, want one", names)
	}
	var sent, small uint64
	for _, r := range []string{"0-", "0-0", "1048575-1048576", "4194303-12582913", "20000000-20000099", "41943039-", "-5000000"} {
		parts, _ := parseRange(nil, "bytes="+r, int64(len(value)))
		part := parts[0]
		got := c.do("GET", "/k", "", "Range: bytes="+r)
		got.wantStatus(t, 206)
		got.wantBody(t, value[part.off:part.off+part.n])
		if part.n >= sendfileMin {
			sent += uint64(part.n)
		} else {
			small += uint64(part.n)
		}
	}
	checkBytes(t, s.Stats, small, sent, Copied{})

	c.do("PUT", "/k", "small").wantStatus(t, 204)
	c.do("GET", "/k", "").wantBody(t, []byte("small"))
}

// TestUploadBoundaries: sizes around those at which the way into the store
// changes, with and without a length.
func TestUploadBoundaries(t *testing.T) {
	const blob = 1 << 20
	store := openStoreIn(t, t.TempDir(), &db.Options{BlobSize: blob})
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	for _, n := range []int{blob - 1, blob, blob + 1, 2*blob - 1, 2 * blob, 32 << 20} {
		value := noise(n, byte(n))
		for _, chunked := range []bool{false, true} {
			if got := upload(c, "k", value, chunked); got.StatusCode >= 300 {
				t.Fatalf("%d bytes: %s", n, got.Status)
			}
			c.do("GET", "/k", "").wantBody(t, value)
		}
	}
}

// TestKilledUpload: of a client that goes away nothing stays, in the store or
// in its directory.
func TestKilledUpload(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{})
	s, addr := start(t, store, &Options{Log: failOnError(t)})
	put(t, store, "old", noise(17<<20, 1), nil)
	before := blobFiles(t, dir)
	const size = 40 << 20
	begun := noise(18<<20, 2) // beyond what is held in memory
	clients := 0
	for _, key := range []string{"new", "old"} {
		for _, header := range []string{fmt.Sprintf("Content-Length: %d", size), "Transfer-Encoding: chunked"} {
			for _, polite := range []bool{false, true} {
				c := dial(t, addr)
				c.send("PUT /" + key + " HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n\r\n")
				if strings.HasPrefix(header, "T") {
					c.send(fmt.Sprintf("%x\r\n", size))
				}
				if _, err := c.Write(begun); err != nil {
					t.Fatal(err)
				}
				clients++
				if polite {
					c.CloseWrite()
					got := c.receive("PUT")
					got.wantStatus(t, 400)
					checkProblem(t, got)
					continue
				}
				eventually(t, "the upload has a file", func() bool { return len(blobFiles(t, dir)) > len(before) })
				c.SetLinger(0)
				c.Close()
			}
		}
	}
	want := Requests{ClientError: uint64(clients)}
	eventually(t, "all uploads have failed", func() bool { return s.Stats().Put == want })
	if after := blobFiles(t, dir); !slices.Equal(before, after) {
		t.Errorf("files %v, before there were %v", after, before)
	}
	wantAbsent(t, store, "new")
	dial(t, addr).do("GET", "/old", "").wantBody(t, noise(17<<20, 1))
}

// TestRefusedUpload: a value that was written to a file and then may not have
// its key leaves no file.
func TestRefusedUpload(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{})
	_, addr := start(t, store, nil)
	value := noise(17<<20, 1)
	c := dial(t, addr)
	if got, asked := hesitate(c, "k", string(value), "If-None-Match: *"); !asked {
		t.Fatal(got.Status)
	}
	if _, err := c.Write(value[:len(value)-1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the upload has a file", func() bool { return len(blobFiles(t, dir)) > 0 })
	put(t, store, "k", []byte("theirs"), nil)
	if _, err := c.Write(value[len(value)-1:]); err != nil {
		t.Fatal(err)
	}
	got := c.receive("PUT")
	got.wantStatus(t, 412)
	checkProblem(t, got)
	c.do("GET", "/k", "").wantBody(t, []byte("theirs")) // on the same connection
	if names := blobFiles(t, dir); len(names) > 0 {
		t.Errorf("files %v", names)
	}
}

// TestLateTooLarge: a chunked body shows only while it comes that it is too
// large, here when there is a file already.
func TestLateTooLarge(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{BlobSize: 1 << 20})
	_, addr := start(t, store, &Options{MaxBody: 3 << 20, Log: failOnError(t)})
	upload(dial(t, addr), "k", noise(3<<20, 1), true).wantStatus(t, 201)
	got := upload(dial(t, addr), "k", noise(3<<20+1, 2), true)
	got.wantStatus(t, 413)
	checkProblem(t, got)
	checkHeader(t, got, "Connection", "close")
	if names := blobFiles(t, dir); len(names) != 1 {
		t.Errorf("files %v", names)
	}
	dial(t, addr).do("GET", "/k", "").wantBody(t, noise(3<<20, 1))
}

// TestLyingBody: what unpacks bodies on their way to the handler may leave the
// length of what was packed.
func TestLyingBody(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{BlobSize: 4 << 20})
	h := NewHandler(store, &Options{Log: failOnError(t)})
	for _, said := range []int{1, 1000, uploadPiece, uploadPiece + 1, 3 << 20, 4 << 20, 9 << 20} {
		for _, is := range []int{0, said - 1, said + 1, said + uploadPiece} {
			r := httptest.NewRequest("PUT", "/k", bytes.NewReader(make([]byte, is)))
			r.ContentLength = int64(said)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 400 || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d bytes that are said to be %d: status %d, %s", is, said, w.Code, w.Body)
			}
		}
	}
	wantAbsent(t, store, "k")
	if names := blobFiles(t, dir); len(names) > 0 {
		t.Errorf("files %v", names)
	}
}

// TestCancelledUpload: the program around the handler may end a request.
func TestCancelledUpload(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{BlobSize: 1 << 20})
	h := NewHandler(store, &Options{Log: failOnError(t)})
	for _, length := range []int64{-1, 1000, 3 << 20} {
		ctx, cancel := context.WithCancel(t.Context())
		body := io.MultiReader(bytes.NewReader(make([]byte, 500)), cancelReader{cancel}, zeros{})
		r := httptest.NewRequest("PUT", "/k", body).WithContext(ctx)
		r.ContentLength = length
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 400 {
			t.Errorf("length %d: status %d", length, w.Code)
		}
	}
	wantAbsent(t, store, "k")
	if names := blobFiles(t, dir); len(names) > 0 {
		t.Errorf("files %v", names)
	}
}

type cancelReader struct{ cancel func() }

func (r cancelReader) Read([]byte) (int, error) { r.cancel(); return 0, io.EOF }

// TestAnnouncedMemory: a client that announces much and sends nothing costs
// little, and leaves others what there may be.
func TestAnnouncedMemory(t *testing.T) {
	const clients = 30
	_, addr := start(t, openStore(t), &Options{MaxInFlight: clients * uploadPiece})
	body := strings.Repeat("x", 15<<20)
	before := allocated()
	for range clients {
		if _, asked := hesitate(dial(t, addr), "k", body); !asked {
			t.Fatal("refused")
		}
	}
	if each := (allocated() - before) / clients; each > 2*uploadPiece {
		t.Errorf("%d bytes for each client", each)
	}
}

// TestUnwantedBody: the connection outlives a body that nobody wants if it is
// short, and the server does not wait for one that does not come.
func TestUnwantedBody(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	_, addr := start(t, store, nil, fastPace(300*time.Millisecond))
	_, patient := start(t, store, nil)
	for _, request := range []string{"GET /k", "DELETE /none", "POST /k", "PUT /", "PUT /-/x"} {
		ask := func(c *wire, length, body string) reply {
			c.send(request + " HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \"x\"\r\n" + length + "\r\n\r\n" + body)
			method, _, _ := strings.Cut(request, " ")
			return c.receive(method)
		}
		c := dial(t, addr)
		for range 3 {
			if ask(c, "Content-Length: 10", "GET / HTTP").Close {
				t.Errorf("%s: the connection ends after a short body", request)
			}
			if ask(c, "Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n").Close {
				t.Errorf("%s: the connection ends after a short chunked body", request)
			}
		}
		long := fmt.Sprintf("Content-Length: %d", maxSkip+1)
		for name, got := range map[string]reply{
			"never comes": ask(dial(t, addr), "Content-Length: 10", ""),
			"is long":     ask(dial(t, patient), long, ""), // not waited for
		} {
			if !got.Close {
				t.Errorf("%s: the connection goes on with a body that %s", request, name)
			}
		}
	}
}

// TestSilentAfterRefusal: a connection is not held by one who was refused.
func TestSilentAfterRefusal(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	_, addr := start(t, store, &Options{MaxBody: 1 << 20}, fastPace(300*time.Millisecond))
	for name, request := range map[string]string{
		"condition": "Content-Length: 1000\r\nIf-None-Match: *\r\nExpect: 100-continue\r\n\r\n",
		"size":      "Content-Length: 1048577\r\n\r\n",
		"too slow":  "Content-Length: 1000\r\n\r\nxxx",
		"chunked":   "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		c := dial(t, addr)
		c.send("PUT /k HTTP/1.1\r\nHost: localhost\r\n" + request)
		c.receive("PUT")
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.in.ReadByte(); err != io.EOF {
			t.Errorf("%s: after the response %v", name, err)
		}
	}
}

// TestExpectRefusals: no refusal that needs no body asks for it.
func TestExpectRefusals(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), &db.Metadata{ModTime: exampleTime})
	_, addr := start(t, store, &Options{MaxBody: 100})
	for header, status := range map[string]int{
		"If-None-Match: *":                  412,
		`If-Match: "x"`:                     412,
		"If-Unmodified-Since: " + dayBefore: 412,
		"Content-Range: bytes 0-1/5":        400,
		"X-Meta-A: \xff":                    400,
	} {
		got, asked := hesitate(dial(t, addr), "k", "body", header)
		if asked {
			t.Errorf("%s: the body is asked for", header)
			continue
		}
		got.wantStatus(t, status)
		checkProblem(t, got)
		checkHeader(t, got, "Connection", "close")
	}
	for target, status := range map[string]int{"-/x": 404, "": 405} {
		got, asked := hesitate(dial(t, addr), target, "body")
		if asked || got.StatusCode != status {
			t.Errorf("/%s: %v", target, got.Status)
		}
	}
}

// fullBlobs is a directory in which nothing can be written to a blob.
type fullBlobs struct {
	vfs.FS
	reserve bool // is what fails
}

type fullBlob struct {
	vfs.File
	reserve bool
}

func (d fullBlobs) Create(name string) (vfs.File, error) {
	f, err := d.FS.Create(name)
	if err == nil && strings.Contains(name, ".blob") {
		f = fullBlob{f, d.reserve}
	}
	return f, err
}

func (f fullBlob) Reserve(off, n int64) error {
	if f.reserve {
		return syscall.ENOSPC
	}
	return f.File.Reserve(off, n)
}

func (f fullBlob) WriteVec(vec [][]byte, off int64) (int, error) {
	if off > 3<<20 {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteVec(vec, off)
}

func TestFullDiskForLarge(t *testing.T) {
	for _, reserve := range []bool{true, false} {
		dir := t.TempDir()
		fsys, err := vfs.OpenDir(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		store := openStoreIn(t, "", &db.Options{FS: fullBlobs{fsys, reserve}})
		_, addr := start(t, store, &Options{Log: quiet()})
		value := make([]byte, 32<<20)
		c := dial(t, addr)
		got, asked := hesitate(c, "k", string(value))
		if asked == reserve {
			t.Errorf("asked for the body: %v", asked)
		}
		if asked {
			c.Write(value) // cut off before the end
			got = c.receive("PUT")
		}
		got.wantStatus(t, 507)
		checkProblem(t, got)
		checkHeader(t, got, "Connection", "close")
		wantAbsent(t, store, "k")
		if names := blobFiles(t, dir); len(names) > 0 {
			t.Errorf("files %v", names)
		}
		dial(t, addr).do("PUT", "/k", "small").wantStatus(t, 201)
	}
}

// TestDamagedPiece: what is sound of a damaged value is sent, and no byte of
// what is not.
func TestDamagedPiece(t *testing.T) {
	const size, bad = 14 << 20, 9 << 20
	value := noise(size, 1)
	for name, blobSize := range map[string]int64{"segment": 16 << 20, "blob": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store, err := db.Open(dir, &db.Options{BlobSize: blobSize})
			if err != nil {
				t.Fatal(err)
			}
			put(t, store, "k", value, nil)
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			flip(t, dir, value[bad:bad+64])
			var log logText
			store = openStoreIn(t, dir, &db.Options{})
			s, addr := start(t, store, &Options{Log: slog.New(slog.NewTextHandler(&log, nil))})

			c := dial(t, addr) // the first two pieces are good
			c.send("GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(c.in, nil)
			if err != nil || resp.StatusCode != 200 || resp.ContentLength != size {
				t.Fatalf("%v, %v", resp, err)
			}
			got, err := io.ReadAll(resp.Body)
			if err == nil || len(got) > 2*sendPiece || !bytes.HasPrefix(value, got) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			eventually(t, "the response is aborted", func() bool { return s.Stats().Aborted == 1 })
			if !strings.Contains(log.String(), "response cut off") || !strings.Contains(log.String(), dir) {
				t.Errorf("log: %s", &log)
			}

			c = dial(t, addr)
			for _, r := range []string{"9437184-9437184", "9437184-", "5500000-13000000"} { // in the first piece
				got := c.do("GET", "/k", "", "Range: bytes="+r)
				got.wantStatus(t, 500)
				checkProblem(t, got)
			}
			for _, r := range [][2]int{{0, 8 << 20}, {10 << 20, size}} {
				got := c.do("GET", "/k", "", fmt.Sprintf("Range: bytes=%d-%d", r[0], r[1]-1))
				got.wantStatus(t, 206)
				got.wantBody(t, value[r[0]:r[1]])
			}
			c.do("HEAD", "/k", "").wantStatus(t, 200)
		})
	}
}

// flip damages the file in dir that has the bytes.
func flip(t *testing.T, dir string, b []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.[sb]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(text, b); i >= 0 {
			text[i] ^= 1
			if err := os.WriteFile(name, text, 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no file has the value")
}

// TestFaults: only the panic of a page that can't be read becomes an error.
func TestFaults(t *testing.T) {
	if err := faultError(addressError{}, 5); !errors.Is(err, syscall.EIO) || !ownFault(err) {
		t.Errorf("got %v", err)
	}
	defer func() {
		if r := recover(); r != "another" {
			t.Errorf("recovered %v", r)
		}
	}()
	faultError("another", 5)
}

// addressError is what the runtime panics with.
type addressError struct{}

func (addressError) Error() string { return "fault" }
func (addressError) RuntimeError() {}
func (addressError) Addr() uintptr { return 1 }
