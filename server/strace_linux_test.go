package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// childStore is set for a child that serves the store it names, see serveChild,
// childSlow for one that does so without the fast path, childForeign for one with
// a server of net/http, and childHurry for one whose time-outs are short.
const (
	childStore   = "CROWFLY_SERVER_TEST_STORE"
	childSlow    = "CROWFLY_SERVER_TEST_SLOW"
	childForeign = "CROWFLY_SERVER_TEST_FOREIGN"
	childHurry   = "CROWFLY_SERVER_TEST_HURRY"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(childAttack); addr != "" {
		if err := attackChild(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(childStore); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childReady is what the child writes, with its address, when it serves.
const childReady = "serving on "

// serveChild serves a store until the parent closes standard input. For each line
// of that it gives all memory back that it does not need, and says so.
func serveChild(dir string) error {
	store, err := db.Open(dir, nil)
	if err != nil {
		return err
	}
	var s interface {
		Serve(net.Listener) error
		Shutdown(context.Context) error
	}
	if own := New(store, nil); os.Getenv(childForeign) == "" {
		own.slow = os.Getenv(childSlow) != ""
		if os.Getenv(childHurry) != "" {
			own.http.ReadHeaderTimeout, own.http.IdleTimeout = 2*time.Second, 2*time.Second
			fastPace(2 * time.Second)(own)
		}
		s = own
	} else {
		s = &http.Server{Handler: NewHandler(store, nil)}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	fmt.Println(childReady + l.Addr().String())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		runtime.GC() // pools need two to be empty
		debug.FreeOSMemory()
		fmt.Println("done")
	}
	if err := in.Err(); err != nil {
		return err
	}
	err = s.Shutdown(context.Background())
	if end := <-done; end != http.ErrServerClosed {
		err = errors.Join(err, end)
	}
	return errors.Join(err, store.Close())
}

// TestSystemCalls watches the server from outside: the bytes of large values
// leave by sendfile with an explicit offset, only headers and small values are
// written, with one call for each response or part of it, and nothing reads the
// segment. A request is read with one call, not counting that there was none
// yet, and a small value leaves with one more.
func TestSystemCalls(t *testing.T) {
	calls, sent := traceGets(t)
	seen := watch(t, calls, sent)
	if seen.read != sent.requests || seen.vectors != sent.vectors {
		t.Errorf("%d reads that brought something and %d writev for %d requests, want %d writev",
			seen.read, seen.vectors, sent.requests, sent.vectors)
	}
	if seen.more != sent.large {
		t.Errorf("%d headers wait for their body, want one for each of %d large bodies", seen.more, sent.large)
	}
}

// TestSystemCallsElsewhere watches a [Handler] in a server of net/http in the same
// way: large values and ranges of them leave by sendfile too, with a write for
// the header alone, and a small value in one write with it.
func TestSystemCallsElsewhere(t *testing.T) {
	calls, sent := traceGets(t, childForeign+"=1")
	if seen := watch(t, calls, sent); seen.vectors != 0 || seen.more != 0 {
		t.Errorf("%d writev and %d sends with more to come: this is no server of net/http", seen.vectors, seen.more)
	}
}

// traceGets gets values and ranges from a child and returns what it did.
func traceGets(t *testing.T, env ...string) ([]call, traced) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip(t, "no strace")
	}
	values := map[string][]byte{"1K": noise(1000, 3), "256K": noise(256<<10, 1), "12M": noise(12<<20, 2)}
	dir := storeOf(t, values)
	trace := filepath.Join(t.TempDir(), "trace")
	addr, stop := startTraced(t, strace, trace, append(env, childStore+"="+dir)...)
	c := dial(t, addr)
	sent := getTraced(t, c, values)
	if len(env) == 0 {
		sent.getParts(t, c, values["12M"])
	}
	stop()
	return readTrace(t, trace), sent
}

// storeOf makes a closed store with the values.
func storeOf(t *testing.T, values map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	store, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range values {
		put(t, store, key, value, nil)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startPiped starts a child that is told by what it reads and tells by what it
// writes.
func startPiped(t testing.TB, cmd *exec.Cmd) (stdin io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return stdin, bufio.NewReader(stdout)
}

// startTraced starts the child under strace, which writes a file for each
// thread.
func startTraced(t *testing.T, strace, trace string, env ...string) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, strace, "-ff", "-qq", "-ttt", "-yy", "-s", "64", "-o", trace,
		"-e", "trace=network,read,pread64,readv,preadv,preadv2,write,writev,pwrite64,pwritev,sendfile,?sendfile64,splice",
		os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, out := startPiped(t, cmd)
	line, err := out.ReadString('\n')
	if err != nil {
		cmd.Wait()
		if strings.Contains(stderr.String(), "ptrace") {
			skip(t, "ptrace is not allowed: "+stderr.String())
		}
		t.Fatalf("child: %v: %s", err, stderr.String())
	}
	addr = strings.TrimSpace(strings.TrimPrefix(line, childReady))
	return addr, func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("child: %v: %s", err, stderr.String())
		}
	}
}

// traced is what a traced server has sent.
type traced struct {
	requests, writes, vectors, large int
	largeBytes                       int64
}

// getTraced gets values and ranges over one connection.
func getTraced(t *testing.T, c *wire, values map[string][]byte) (sent traced) {
	t.Helper()
	get := func(key string, want []byte, header ...string) {
		got := c.do("GET", "/"+key, "", header...)
		got.wantBody(t, want)
		sent.requests++
		sent.writes++
		if len(want) >= sendfileMin {
			sent.large++
			sent.largeBytes += int64(len(want))
		} else {
			sent.vectors++
		}
	}
	for range 3 {
		for key, value := range values {
			n := len(value)
			get(key, value)
			for _, part := range [][2]int{{1, n}, {n / 3, n / 2}, {n - 1, n}} {
				get(key, value[part[0]:part[1]], fmt.Sprintf("Range: bytes=%d-%d", part[0], part[1]-1))
			}
		}
	}
	return sent
}

// getParts gets a large range of the value 12M and a small one at once: the header
// of the first part leaves with the header, that of the second with its bytes, and
// the end alone.
func (sent *traced) getParts(t *testing.T, c *wire, value []byte) {
	t.Helper()
	parts := []span{{1 << 20, 6 << 20}, {7, 1000}}
	got := c.do("GET", "/12M", "", "Range: "+rangesOf(parts))
	wantParts(t, got, value, parts, defaultType)
	sent.requests++
	sent.writes += 3
	sent.vectors++
	sent.large++
	sent.largeBytes += parts[0].n
}

// call is one system call in a trace.
type call struct {
	when       float64
	name, args string
	result     int64
}

var traceLine = regexp.MustCompile(`^([0-9.]+) (\w+)\((.*)\) += (-?\d+)`)

// readTrace returns all calls of all threads, in no particular order.
func readTrace(t *testing.T, trace string) (calls []call) {
	t.Helper()
	files, err := filepath.Glob(trace + ".*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no trace: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			m := traceLine.FindStringSubmatch(line)
			if m == nil {
				continue // signals, and calls that the exit cut off
			}
			when, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			result, err := strconv.ParseInt(m[4], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			calls = append(calls, call{when, m[2], m[3], result})
		}
	}
	return calls
}

// socketArgs are the arguments of a call on a connection. The child has no
// other sockets than those it serves.
var socketArgs = regexp.MustCompile(`^\d+<(TCP|TCPv6|socket):`)

// watched are calls on sockets: reads that brought something, and writes of two
// kinds.
type watched struct{ read, vectors, more int }

// watch checks what holds for any server, and counts the rest.
func watch(t *testing.T, calls []call, sent traced) (seen watched) {
	t.Helper()
	began := startOfService(t, calls)
	var bySendfile int64
	written := 0
	for _, c := range calls {
		onSocket := socketArgs.MatchString(c.args)
		switch {
		case c.when < began:
		case c.name == "sendfile", c.name == "sendfile64": // so it is called on 32 bits
			bySendfile += max(c.result, 0)
			if !explicitOffset(c.args) {
				t.Errorf("sendfile at the position of the descriptor: %s", c.args)
			}
		case strings.Contains(c.args, ".seg"):
			t.Errorf("the segment is read: %s(%.100s) = %d", c.name, c.args, c.result)
		case onSocket && c.name == "read" && c.result > 0:
			seen.read++
		case onSocket && writes[c.name]:
			written++
			if c.name == "writev" {
				seen.vectors++
			}
			if strings.Contains(c.args, "MSG_MORE") {
				seen.more++
			}
			if c.result >= 4096 {
				t.Errorf("more than a header and a small value is written: %s(%.100s) = %d", c.name, c.args, c.result)
			}
		}
	}
	if bySendfile != sent.largeBytes {
		t.Errorf("%d bytes left by sendfile, the large bodies had %d", bySendfile, sent.largeBytes)
	}
	if written != sent.writes {
		t.Errorf("%d writes to sockets, want %d", written, sent.writes)
	}
	return seen
}

var writes = map[string]bool{"write": true, "writev": true, "sendto": true, "sendmsg": true, "sendmmsg": true, "splice": true}

// startOfService is when the child was ready: opening the store reads it.
func startOfService(t *testing.T, calls []call) float64 {
	t.Helper()
	for _, c := range calls {
		if c.name == "write" && strings.Contains(c.args, childReady) {
			return c.when
		}
	}
	t.Fatal("the trace does not show the beginning")
	return 0
}

// explicitOffset reports whether the third argument of sendfile is an offset.
// Descriptors are shown with their paths and addresses, which have commas.
func explicitOffset(args string) bool {
	i := strings.LastIndex(args, ">, ")
	return i >= 0 && strings.HasPrefix(args[i+len(">, "):], "[")
}
