package db_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

func ExampleDB_PutReader() {
	dir, _ := os.MkdirTemp("", "crowfly")
	defer os.RemoveAll(dir)
	store, err := db.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	source := strings.NewReader("a value from a file or a network, of up to 1 TiB")
	result, err := store.PutReader(context.Background(), []byte("k"), source, -1, &db.PutOptions{IfAbsent: true})
	if err != nil {
		log.Fatal(err)
	}
	// Replace it only if nobody else has meanwhile.
	_, err = store.PutReader(context.Background(), []byte("k"), strings.NewReader("new"), 3, &db.PutOptions{IfMatch: &result.Version})
	fmt.Println(err)
	_, err = store.PutReader(context.Background(), []byte("k"), strings.NewReader("newer"), 5, &db.PutOptions{IfMatch: &result.Version})
	fmt.Println(errors.Is(err, db.ErrPrecondition))
	// Output:
	// <nil>
	// true
}

// A Value is an io.ReadSeeker, so package net/http can serve it, with ranges
// and conditions. (Package server does so without a copy.)
func ExampleValue_serveContent() {
	dir, _ := os.MkdirTemp("", "crowfly")
	defer os.RemoveAll(dir)
	store, err := db.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Put([]byte("greeting.txt"), []byte("hello, world"), &db.PutOptions{
		Metadata: &db.Metadata{ModTime: time.Now()},
	}); err != nil {
		log.Fatal(err)
	}

	handler := func(w http.ResponseWriter, r *http.Request) {
		value, err := store.Value([]byte(r.URL.Path[1:]))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer value.Close()
		w.Header().Set("ETag", `"`+value.Version().String()+`"`)
		http.ServeContent(w, r, r.URL.Path, value.ModTime(), value)
	}

	r := httptest.NewRequest("GET", "/greeting.txt", nil)
	r.Header.Set("Range", "bytes=7-")
	w := httptest.NewRecorder()
	handler(w, r)
	fmt.Println(w.Code, w.Header().Get("Content-Range"), w.Body)
	// Output: 206 bytes 7-11/12 world
}

// A Value is an io.ReaderAt, so an archive is read in its place in the store.
func ExampleValue_zip() {
	dir, _ := os.MkdirTemp("", "crowfly")
	defer os.RemoveAll(dir)
	store, err := db.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if err := store.Put([]byte("archive"), exampleZip(), nil); err != nil {
		log.Fatal(err)
	}

	value, err := store.Value([]byte("archive"))
	if err != nil {
		log.Fatal(err)
	}
	defer value.Close()
	archive, err := zip.NewReader(value, value.Size())
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range archive.File {
		content, err := f.Open()
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(content)
		fmt.Printf("%s: %s %v\n", f.Name, text, err)
	}
	// Output: a.txt: in the archive <nil>
}

func exampleZip() []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("a.txt")
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(f, "in the archive")
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	return b.Bytes()
}

// valueSizes are of values in a segment with one checksum and with chunks, and
// in files of their own.
var valueSizes = []int{0, 1, 5000, 1 << 20, 3<<20 + 1, 8 << 20, 9<<20 + 12345}

// eachValue opens a value of each size.
func eachValue(t *testing.T, use func(t *testing.T, v *db.Value, want []byte)) {
	store, err := db.Open(t.TempDir(), &db.Options{Sync: db.SyncNever, BlobSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i, n := range valueSizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			want := make([]byte, n)
			rand.NewChaCha8([32]byte{byte(i)}).Read(want)
			if err := store.Put([]byte("k"), want, nil); err != nil {
				t.Fatal(err)
			}
			v, err := store.Value([]byte("k"))
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			use(t, v, want)
		})
	}
}

// TestValueInServeContent: all that package net/http does with a ReadSeeker.
func TestValueInServeContent(t *testing.T) {
	eachValue(t, func(t *testing.T, v *db.Value, want []byte) {
		random := rand.New(rand.NewPCG(1, uint64(len(want))))
		for range 20 {
			off := random.IntN(len(want) + 1)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+random.IntN(1<<20)))
			got, expected := httptest.NewRecorder(), httptest.NewRecorder()
			http.ServeContent(got, r, "x.bin", time.Time{}, v)
			http.ServeContent(expected, r, "x.bin", time.Time{}, bytes.NewReader(want))
			if got.Code != expected.Code || !bytes.Equal(got.Body.Bytes(), expected.Body.Bytes()) {
				t.Fatalf("%s: status %d, want %d", r.Header.Get("Range"), got.Code, expected.Code)
			}
		}
	})
}

// TestValueAsZip: an archive that does not fit into one read.
func TestValueAsZip(t *testing.T) {
	eachValue(t, func(t *testing.T, v *db.Value, want []byte) {
		store, err := db.Open(t.TempDir(), &db.Options{Sync: db.SyncNever, BlobSize: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for _, name := range []string{"a", "b"} {
			f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
			if err == nil {
				_, err = io.Copy(f, v)
			}
			if err != nil {
				t.Fatal(err)
			}
			v.Seek(0, io.SeekStart)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := store.Put([]byte("zip"), b.Bytes(), nil); err != nil {
			t.Fatal(err)
		}
		stored, err := store.Value([]byte("zip"))
		if err != nil {
			t.Fatal(err)
		}
		defer stored.Close()
		archive, err := zip.NewReader(stored, stored.Size())
		if err != nil || len(archive.File) != 2 {
			t.Fatal(archive, err)
		}
		f, err := archive.Open("b")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d other bytes, %v", len(got), err)
		}
	})
}

// TestValueToSocket: io.Copy to a TCP connection has the kernel send the file,
// from the position of the Value and not that of the descriptor.
func TestValueToSocket(t *testing.T) {
	eachValue(t, func(t *testing.T, v *db.Value, want []byte) {
		for _, from := range []int{0, len(want) / 3} {
			client, server := tcpPair(t)
			received := make(chan []byte)
			go func() {
				got, err := io.ReadAll(client)
				if err != nil {
					t.Error(err)
				}
				received <- got
			}()
			if _, err := v.Seek(int64(from), io.SeekStart); err != nil {
				t.Fatal(err)
			}
			watched := &watchedConn{TCPConn: server}
			n, err := io.Copy(watched, v)
			server.Close()
			if got := <-received; err != nil || n != int64(len(got)) || !bytes.Equal(got, want[from:]) {
				t.Errorf("from %d: sent %d, received %d other bytes, %v", from, n, len(got), err)
			}
			if at, _ := v.Seek(0, io.SeekCurrent); at != int64(len(want)) {
				t.Errorf("from %d: then at %d", from, at)
			}
			if runtime.GOOS == "linux" && watched.written > 0 {
				t.Errorf("from %d: %d bytes were written, not sent from the file", from, watched.written)
			}
		}
	})
}

// watchedConn counts what comes out of user space.
type watchedConn struct {
	*net.TCPConn
	written int
}

var _ syscall.Conn = (*watchedConn)(nil)

func (c *watchedConn) Write(p []byte) (int, error) {
	c.written += len(p)
	return c.TCPConn.Write(p)
}

// ReadFrom takes the place of one that would write unseen.
func (c *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
