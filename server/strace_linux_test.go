package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// childStore is set for a child that serves the store it names, see serveChild,
// and childSlow for one that does so without the fast path.
const (
	childStore = "CROWFLY_SERVER_TEST_STORE"
	childSlow  = "CROWFLY_SERVER_TEST_SLOW"
)

func TestMain(m *testing.M) {
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

// serveChild serves a store until the parent closes standard input.
func serveChild(dir string) error {
	store, err := db.Open(dir, nil)
	if err != nil {
		return err
	}
	s := New(store, nil)
	s.slow = os.Getenv(childSlow) != ""
	l, err := s.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	fmt.Println(childReady + l.Addr().String())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	err = s.Shutdown(context.Background())
	return errors.Join(err, <-done, store.Close())
}

// TestSystemCalls watches the server from outside: the bytes of large values
// leave by sendfile with an explicit offset, only headers and small values are
// written, with one call for each response, and nothing reads the segment. A
// request is read with one call, not counting that there was none yet, and a
// small value leaves with one more.
func TestSystemCalls(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		skip(t, "no strace")
	}
	values := map[string][]byte{"1K": noise(1000, 3), "256K": noise(256<<10, 1), "12M": noise(12<<20, 2)}
	dir := storeOf(t, values)
	trace := filepath.Join(t.TempDir(), "trace")
	addr, stop := startTraced(t, strace, trace, dir)

	sent := getTraced(t, addr, values)
	stop()

	checkCalls(t, readTrace(t, trace), sent)
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

// startTraced starts the child under strace, which writes a file for each
// thread.
func startTraced(t *testing.T, strace, trace, dir string) (addr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, strace, "-ff", "-qq", "-ttt", "-yy", "-s", "64", "-o", trace,
		"-e", "trace=network,read,pread64,readv,preadv,preadv2,write,writev,pwrite64,pwritev,sendfile,splice",
		os.Args[0])
	cmd.Env = append(os.Environ(), childStore+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
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
	line, err := bufio.NewReader(stdout).ReadString('\n')
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
	responses, large int
	largeBytes       int64
}

// getTraced gets values and ranges over one connection.
func getTraced(t *testing.T, addr string, values map[string][]byte) (sent traced) {
	t.Helper()
	c := dial(t, addr)
	get := func(key string, want []byte, header ...string) {
		got := c.do("GET", "/"+key, "", header...)
		got.wantBody(t, want)
		sent.responses++
		if len(want) >= sendfileMin {
			sent.large++
			sent.largeBytes += int64(len(want))
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

func checkCalls(t *testing.T, calls []call, sent traced) {
	t.Helper()
	began := startOfService(t, calls)
	var bySendfile int64
	read, written, vectors, more := 0, 0, 0, 0
	for _, c := range calls {
		onSocket := socketArgs.MatchString(c.args)
		switch {
		case c.when < began:
		case c.name == "sendfile":
			bySendfile += max(c.result, 0)
			if !explicitOffset(c.args) {
				t.Errorf("sendfile at the position of the descriptor: %s", c.args)
			}
		case strings.Contains(c.args, ".seg"):
			t.Errorf("the segment is read: %s(%.100s) = %d", c.name, c.args, c.result)
		case onSocket && c.name == "read" && c.result > 0:
			read++
		case onSocket && writes[c.name]:
			written++
			if c.name == "writev" {
				vectors++
			}
			if strings.Contains(c.args, "MSG_MORE") {
				more++
			}
			if c.result >= 4096 {
				t.Errorf("more than a header and a small value is written: %s(%.100s) = %d", c.name, c.args, c.result)
			}
		}
	}
	if bySendfile != sent.largeBytes {
		t.Errorf("%d bytes left by sendfile, the large bodies had %d", bySendfile, sent.largeBytes)
	}
	if written != sent.responses {
		t.Errorf("%d writes to sockets for %d responses", written, sent.responses)
	}
	if read != sent.responses || vectors != sent.responses-sent.large {
		t.Errorf("%d reads that brought something and %d writev, want one for each of %d requests, %d of them for large values",
			read, vectors, sent.responses, sent.large)
	}
	if more != sent.large {
		t.Errorf("%d headers wait for their body, want one for each of %d large bodies", more, sent.large)
	}
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
