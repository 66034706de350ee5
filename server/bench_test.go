package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// BenchmarkGet answers what a GET costs on a keep-alive connection, with the
// client in the same process, on the fast path and with net/http. With depth 1
// most of it is how client and server wake each other; of many requests sent at
// once that takes little.
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{1000, 4000, 16 << 10, 64 << 10, 1 << 20} {
		for _, depth := range []int{1, 16} {
			for _, slow := range []bool{false, true} {
				if size*depth > 1<<20 {
					continue // more than fits into the buffers between them
				}
				path := "fast"
				if slow {
					path = "nethttp"
				}
				b.Run(fmt.Sprintf("size=%d/depth=%d/%s", size, depth, path), func(b *testing.B) { benchGet(b, size, depth, slow) })
			}
		}
	}
}

func benchGet(b *testing.B, size, depth int, slow bool) {
	store, err := db.Open(b.TempDir(), &db.Options{Sync: db.SyncNever})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	m := &db.Metadata{ModTime: time.Now(), ContentType: "text/html"}
	if err := store.Put([]byte("k"), noise(size, 1), &db.PutOptions{Metadata: m}); err != nil {
		b.Fatal(err)
	}
	c := benchServer(b, store, slow)
	request := []byte("GET /k HTTP/1.1\r\nHost: localhost:7070\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
	n := askOnce(b, c, request)
	requests, answers := bytes.Repeat(request, depth), make([]byte, depth*n)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for asked := 0; asked < b.N; asked += depth {
		if _, err := c.Write(requests); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, answers); err != nil {
			b.Fatal(err)
		}
	}
}

// benchServer serves a store and returns a connection to it.
func benchServer(b *testing.B, store *db.DB, slow bool) net.Conn {
	s := New(store, nil)
	s.slow = slow
	l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(l)
	b.Cleanup(func() { s.Shutdown(context.Background()) })
	return benchDial(b, l.Addr().String())
}

func benchDial(b *testing.B, addr string) net.Conn {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}
