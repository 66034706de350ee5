package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// TestLoopStress: whatever clients do, each gets its own answers, in order and
// with every byte, none waits for ever, Shutdown ends and nothing is left behind.
// Method: many clients send pipelines of all kinds of requests, cut at random
// places, read slowly, go away at random moments or end their side; each value
// tells whose it is. Servers come and go meanwhile. CROWFLY_FULL takes longer.
func TestLoopStress(t *testing.T) {
	rounds, long, clients := 4, 500*time.Millisecond, 60
	if os.Getenv("CROWFLY_FULL") != "" {
		rounds, long, clients = 25, 2*time.Second, 250
	}
	x := &stress{t: t, store: openStore(t), values: make(map[string][]byte)}
	for i, n := range []int{1, 700, 5000, 20_000, 300_000, 1<<20 + 12345} {
		x.put(fmt.Sprintf("v%d", i), noise(n, byte(i)))
	}
	if err := x.store.Sync(); err != nil {
		t.Fatal(err)
	}
	for r := range rounds {
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		s, addr, end := serveOn(t, x.store)
		x.stopping.Store(false)
		var wg sync.WaitGroup
		for i := range clients {
			rnd := rand.New(rand.NewPCG(uint64(r), uint64(i)))
			wg.Go(func() {
				for !x.stopping.Load() && !t.Failed() {
					x.client(addr, fmt.Sprintf("own%d", i), rnd)
				}
			})
		}
		time.Sleep(long)
		x.stopping.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if err := end(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		cancel()
		wg.Wait()
		if n := fastConns(s); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
		eventually(t, "no descriptor is left", func() bool { return openFiles(t) <= files })
		if t.Failed() {
			break
		}
	}
	t.Logf("%d answers, %d connections, of those %d cut", x.answers.Load(), x.conns.Load(), x.cuts.Load())
}

// openFiles counts descriptors but for those of the store.
func openFiles(t *testing.T) (n int) {
	list, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if name, _ := os.Readlink(f); strings.HasPrefix(name, "socket:") || strings.HasPrefix(name, "anon_inode:") {
			n++
		}
	}
	return n
}

type stress struct {
	t                    *testing.T
	store                *db.DB
	values               map[string][]byte
	stopping             atomic.Bool
	answers, conns, cuts atomic.Int64
}

func (x *stress) put(key string, value []byte) {
	x.values[key] = value
	put(x.t, x.store, key, value, nil)
}

// stressed is a request and what is to come of it.
type stressed struct {
	text, method string
	status       []int
	body         []byte
}

// pick makes a request. own is what the client has put last, under its own key.
func (x *stress) pick(key string, own *[]byte, rnd *rand.Rand) stressed {
	shared := fmt.Sprintf("v%d", min(rnd.IntN(len(x.values)), rnd.IntN(len(x.values)+2)))
	value := x.values[shared]
	head := func(method, target, more string) string {
		return method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n"
	}
	switch n := rnd.IntN(40); {
	case n < 14:
		return stressed{head("GET", "/"+shared, ""), "GET", []int{200}, value}
	case n < 18:
		return stressed{head("HEAD", "/"+shared, ""), "HEAD", []int{200}, nil}
	case n < 22:
		from := rnd.IntN(len(value))
		return stressed{head("GET", "/"+shared, fmt.Sprintf("Range: bytes=%d-\r\n", from)), "GET", []int{206}, value[from:]}
	case n < 25:
		return stressed{head("GET", "/"+shared, "If-None-Match: *\r\n"), "GET", []int{304}, nil}
	case n < 27:
		return stressed{head("GET", "/none", "User-Agent: x\r\n"), "GET", []int{404}, nil}
	case n < 31 || *own == nil:
		v := fmt.Appendf(nil, "%s %d ", key, rnd.Uint64())
		v = append(v, noise(rnd.IntN(20_000), byte(rnd.Uint32()))...)
		*own = v
		return stressed{head("PUT", "/"+key, fmt.Sprintf("Content-Length: %d\r\n", len(v))) + string(v), "PUT", []int{201, 204}, nil}
	case n < 39:
		return stressed{head("GET", "/"+key, ""), "GET", []int{200}, *own}
	default:
		return stressed{head("DELETE", "/none", ""), "DELETE", []int{404, 204}, nil} // net/http's
	}
}

// client is one connection.
func (x *stress) client(addr, key string, rnd *rand.Rand) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		if !x.stopping.Load() {
			x.t.Errorf("dial: %v", err)
		}
		return
	}
	defer c.Close()
	key = fmt.Sprintf("%s-%d", key, x.conns.Add(1)) // what the last one has put may come late
	tcp := c.(*net.TCPConn)
	if rnd.IntN(3) == 0 {
		tcp.SetReadBuffer(128 << 10) // less than a segment of this machine takes for ever
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(c)
	var own []byte
	for range 1 + rnd.IntN(6) {
		var list []stressed
		var text []byte
		for range 1 + rnd.IntN(1+rnd.IntN(45)) {
			q := x.pick(key, &own, rnd)
			list, text = append(list, q), append(text, q.text...)
		}
		cut := rnd.IntN(8) == 0
		half := rnd.IntN(12) == 0
		seed := rnd.Uint64()
		var sent sync.WaitGroup
		sent.Go(func() {
			pieces(c, text, rand.New(rand.NewPCG(seed, 1)))
			if half {
				tcp.CloseWrite()
			}
		})
		stop := len(list)
		if cut {
			stop = rnd.IntN(len(list) + 1)
		}
		for i, q := range list[:stop] {
			if rnd.IntN(30) == 0 {
				time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
			}
			if !x.receive(in, q, i) {
				c.Close()
				sent.Wait()
				return
			}
		}
		if cut {
			x.cuts.Add(1)
			if rnd.IntN(2) == 0 {
				tcp.SetLinger(0)
			}
			in.Peek(1 + rnd.IntN(1000))
			c.Close()
			sent.Wait()
			return
		}
		sent.Wait()
		if half {
			if n, err := io.Copy(io.Discard, in); (n != 0 || err != nil) && !x.stopping.Load() {
				x.t.Errorf("behind the last answer %d bytes, %v", n, err)
			}
			return
		}
	}
}

// pieces sends text in pieces.
func pieces(c net.Conn, text []byte, rnd *rand.Rand) {
	whole := rnd.IntN(3) == 0
	for len(text) > 0 {
		n := len(text)
		if !whole {
			n = min(n, 1+rnd.IntN(1+rnd.IntN(4000)))
		}
		if _, err := c.Write(text[:n]); err != nil {
			return
		}
		if text = text[n:]; rnd.IntN(4) == 0 {
			time.Sleep(time.Duration(rnd.IntN(3000)) * time.Microsecond)
		}
	}
}

// receive reads an answer and reports whether it was the right one.
func (x *stress) receive(in *bufio.Reader, q stressed, i int) bool {
	resp, err := http.ReadResponse(in, &http.Request{Method: q.method})
	var body []byte
	if err == nil {
		body, err = io.ReadAll(resp.Body)
	}
	first := bytes.IndexByte([]byte(q.text), '\r')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.t.Errorf("request %d, %s: waits for ever", i, q.text[:first])
		return false
	case err != nil && x.stopping.Load():
		return false
	case err != nil:
		x.t.Errorf("request %d, %s: %v", i, q.text[:first], err)
		return false
	}
	ok := false
	for _, s := range q.status {
		ok = ok || s == resp.StatusCode
	}
	if !ok || q.body != nil && !bytes.Equal(body, q.body) {
		x.t.Errorf("request %d, %s: status %d, %d bytes; want %v and %d bytes: %.60q and not %.60q", i, q.text[:first],
			resp.StatusCode, len(body), q.status, len(q.body), body, q.body)
		return false
	}
	x.answers.Add(1)
	return true
}
