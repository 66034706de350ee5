package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

func needSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals")
	}
}

// named is how a message names a child that has a lock: not at all where the
// system does not tell.
func (c *child) named() string {
	if _, err := os.Stat("/proc/locks"); err != nil {
		return ""
	}
	command := filepath.Base(os.Args[0])
	return fmt.Sprintf(": process %d (%s)", c.Process.Pid, command[:min(len(command), 15)])
}

// serve starts a server and returns its URL and the commands it proposes.
func serve(t *testing.T, dir string, flags ...string) (c *child, url string, hints []string) {
	t.Helper()
	c = start(t, append([]string{"serve", dir, "--listen", "127.0.0.1:0"}, flags...)...)
	line, err := c.err.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url = regexp.MustCompile(`https?://[0-9.:]+`).FindString(line)
	if url == "" {
		t.Fatalf("no address in %q", line)
	}
	for range 5 {
		line, err := c.err.ReadString('\n')
		if err != nil || !strings.Contains(line, url) {
			t.Fatalf("%q %v", line, err)
		}
		hints = append(hints, strings.TrimSpace(line))
	}
	return c, url, hints
}

func request(t *testing.T, method, url, body string) (status int, got string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Reading commands work beside a server and see what it has acknowledged,
// writing ones say what to do instead, and a signal ends it cleanly.
func TestServe(t *testing.T) {
	needSignals(t)
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	c, url, _ := serve(t, dir)

	want := make(files)
	for i := range 300 {
		key := fmt.Sprintf("dir%d/file%d", i%7, i)
		want[key] = strings.Repeat(key, i*i/8)
		if status, body := request(t, "PUT", url+"/"+key, want[key]); status != http.StatusCreated {
			t.Fatalf("PUT: %d %s", status, body)
		}
	}
	for key, value := range want {
		if _, got := request(t, "GET", url+"/"+key, ""); got != value {
			t.Errorf("GET %s: %d bytes, want %d", key, len(got), len(value))
		}
	}
	for i := range 10 {
		key := fmt.Sprintf("dir%d/file%d", i%7, i)
		if got := mustRun(t, "get", dir, key); got != want[key] {
			t.Errorf("get %s beside the server: %d bytes, want %d", key, len(got), len(want[key]))
		}
	}
	if got := mustRun(t, "ls", dir, "dir3/"); strings.Count(got, "\n") != 43 {
		t.Errorf("ls beside the server: %q", got)
	}
	if got := objects[server.StoreStats](t, mustRun(t, "stat", dir, "--json"))[0]; got.Keys != 300 {
		t.Errorf("stat beside the server: %+v", got)
	}
	for _, args := range [][]string{{"rm", dir, "dir0/file0"}, {"put", dir, "--key", "key", os.DevNull}, {"import", dir, tmp}, {"serve", dir}} {
		r := crowfly(args...)
		if r.code != exitError || !strings.Contains(r.err, dir+" is locked by another writer"+c.named()+"; is `crowfly serve` running? use curl -T") {
			t.Errorf("%s beside the server: exit code %d: %s", args[0], r.code, r.err)
		}
	}
	before := filepath.Join(tmp, "before")
	mustRun(t, "export", dir, before)
	for key, value := range want {
		if got := mustRead(t, filepath.Join(before, filepath.FromSlash(key))); got != value {
			t.Errorf("export of %s beside the server: %d bytes, want %d", key, len(got), len(value))
		}
	}

	c.Process.Signal(syscall.SIGTERM)
	if code, talk := c.exit(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, talk)
	}
	wantSealed(t, dir)
	after := filepath.Join(tmp, "after")
	mustRun(t, "export", dir, after)
	sameTree(t, before, after)
	if names := regularFiles(t, after); len(names) != len(want) {
		t.Errorf("%d files", len(names))
	}
}

// What the server proposes can be pasted.
func TestServeHints(t *testing.T) {
	needSignals(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip(err)
	}
	_, _, hints := serve(t, filepath.Join(t.TempDir(), "store"))
	want := []string{"", "hello\n", "hell", `"key":"hello.txt"`, ""}
	for i, hint := range hints {
		out, err := exec.Command("sh", "-c", strings.Replace(hint, "curl ", "curl -sSf ", 1)).Output()
		if err != nil || !strings.Contains(string(out), want[i]) {
			t.Errorf("%s: %s %v", hint, out, err)
		}
	}
}

// A server does not die because nobody listens to it any more.
func TestServeUnheard(t *testing.T) {
	needSignals(t)
	c, _, _ := serve(t, filepath.Join(t.TempDir(), "store"))
	if err := c.hangUp(); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(syscall.SIGTERM)
	c.Wait()
	if !c.ProcessState.Success() {
		t.Error(c.ProcessState)
	}
}

// upload begins a PUT that stalls once the server waits for the body.
func upload(t *testing.T, url string) {
	t.Helper()
	body, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	req, err := http.NewRequest("PUT", url, body)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	req.Header.Set("Expect", "100-continue")
	trace := &httptrace.ClientTrace{Got100Continue: func() { close(waits) }}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
	}()
	go io.WriteString(w, "beginning")
	select {
	case <-waits:
	case <-time.After(time.Minute):
		t.Fatal("the server does not ask for the body")
	}
}

// A request that does not end holds a server up until the time is over or a
// second signal comes, and leaves nothing in the store, which is closed all the same.
func TestServeStop(t *testing.T) {
	needSignals(t)
	for name, test := range map[string]struct {
		grace  string
		again  bool
		within time.Duration
	}{
		"deadline":      {grace: "300ms", within: 3 * time.Second},
		"second signal": {grace: "1h", again: true, within: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			c, url, _ := serve(t, dir, "--grace", test.grace)
			request(t, "PUT", url+"/whole", "value")
			upload(t, url+"/stalled")
			time.Sleep(100 * time.Millisecond) // the server takes the request

			begin := time.Now()
			c.Process.Signal(syscall.SIGTERM)
			if line, err := c.err.ReadString('\n'); err != nil || !strings.Contains(line, "stopping") {
				t.Fatalf("%q %v", line, err)
			}
			if test.again {
				c.Process.Signal(os.Interrupt)
			}
			code, talk := c.exit(t)
			if code != exitError || !strings.Contains(talk, "cut off") {
				t.Errorf("exit code %d: %s", code, talk)
			}
			if took := time.Since(begin); took > test.within {
				t.Errorf("took %v", took)
			}
			wantSealed(t, dir)
			if got := mustRun(t, "ls", dir); got != "whole\n" {
				t.Errorf("keys %q", got)
			}
		})
	}
}

// What an import has printed is there with its contents, whenever the import
// is killed, and the store takes the rest.
func TestKillImport(t *testing.T) {
	tmp := t.TempDir()
	tree := filepath.Join(tmp, "tree")
	f := make(files)
	for i := range 4000 {
		key := fmt.Sprintf("d%d/f%d", i%50, i)
		f[key] = strings.Repeat(fmt.Sprintln(key), rand.IntN(1000))
	}
	f.write(t, tree)
	for round := range 3 {
		dir := filepath.Join(tmp, fmt.Sprintf("store%d", round))
		c := start(t, "import", dir, tree, "-v")
		printed := killAfter(t, c, 1+rand.IntN(1500))
		t.Logf("after %d of %d keys: %v", len(printed), len(f), c.ProcessState)
		checkKeys(t, dir, &db.Options{ReadOnly: true}, printed, f)
		checkKeys(t, dir, nil, printed, f) // recovers
		checkKeys(t, dir, &db.Options{ReadOnly: true}, printed, f)

		mustRun(t, "import", dir, tree)
		checkKeys(t, dir, nil, slices.Collect(maps.Keys(f)), f)
	}
}

// killAfter kills a child when it has printed n lines, and returns all it has.
func killAfter(t *testing.T, c *child, n int) (lines []string) {
	t.Helper()
	scanner := bufio.NewScanner(c.out)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
		if len(lines) == n {
			c.Process.Kill()
		}
	}
	c.Wait()
	if len(lines) < n {
		t.Fatalf("the import printed %d keys only", len(lines))
	}
	return lines
}

func checkKeys(t *testing.T, dir string, o *db.Options, keys []string, want files) {
	t.Helper()
	store, err := db.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, key := range keys {
		got, err := store.Get(nil, []byte(key))
		if err != nil || string(got) != want[key] {
			t.Fatalf("%s was printed but has %d bytes, want %d: %v", key, len(got), len(want[key]), err)
		}
	}
}

// With --access-log each request is a line on standard error, and without there
// is none.
func TestServeAccessLog(t *testing.T) {
	needSignals(t)
	for _, flags := range [][]string{nil, {"--access-log"}} {
		c, url, _ := serve(t, filepath.Join(t.TempDir(), "store"), flags...)
		request(t, "PUT", url+"/a%20b", "value")
		request(t, "GET", url+"/a%20b", "")
		c.Process.Signal(syscall.SIGTERM)
		_, talk := c.exit(t)
		want := `level=INFO msg=request method=GET path=/a%20b status=200 bytes=5 duration=`
		if strings.Contains(talk, want) != (flags != nil) || strings.Count(talk, "msg=request") != 2*len(flags) {
			t.Errorf("%q: %s", flags, talk)
		}
	}
}
