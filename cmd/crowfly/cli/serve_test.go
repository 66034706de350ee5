package cli

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// eventually waits until something has come true.
func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true: %s", what)
		}
	}
}

// TestServeHangUp promises that SIGHUP has the tokens read and the log opened anew,
// that what can't be read stays as it was, and that the server goes on in any case.
func TestServeHangUp(t *testing.T) {
	needSignals(t)
	tmp := t.TempDir()
	tokens, log := tokenFile(t), filepath.Join(tmp, "log")
	c, url, _ := serve(t, filepath.Join(tmp, "store"), "--token-file", tokens, "--log-file", log, "--access-log")
	write := func(text string) {
		if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hangUp := func(want string) {
		t.Helper()
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log says "+want, func() bool {
			b, _ := os.ReadFile(log)
			return strings.Contains(string(b), want)
		})
	}
	const other = "another-token-of-some-length"
	if got := requestAs(t, other, "GET", url+"/k", ""); got != 401 {
		t.Errorf("status %d", got)
	}
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	write("rw " + other + "\n")
	hangUp("tokens read")
	if got := requestAs(t, other, "GET", url+"/k", ""); got != 404 {
		t.Errorf("the new token: status %d", got)
	}
	if got := requestAs(t, rwToken, "GET", url+"/k", ""); got != 401 {
		t.Errorf("the old token: status %d", got)
	}
	write("nonsense")
	hangUp("tokens stay what they were")
	if got := requestAs(t, other, "PUT", url+"/k", "v"); got != 201 {
		t.Errorf("after a file that can't be read: status %d", got)
	}
	if b, err := os.ReadFile(log + ".1"); err != nil || strings.Contains(string(b), "tokens") {
		t.Errorf("the log that was moved: %q, %v", b, err)
	}
	c.Process.Signal(os.Interrupt)
	if code, talk := c.exit(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, talk)
	}

	c, url, _ = serve(t, filepath.Join(tmp, "plain"))
	c.Process.Signal(syscall.SIGHUP)
	if status, _ := request(t, "PUT", url+"/k", "v"); status != 201 {
		t.Errorf("without tokens and log: status %d", status)
	}
	c.Process.Signal(os.Interrupt)
	if code, talk := c.exit(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, talk)
	}
}

// TestServeReadOnly promises that a second server can serve a store that another
// one writes to, refuses writes and soon shows those of the other.
func TestServeReadOnly(t *testing.T) {
	needSignals(t)
	dir := filepath.Join(t.TempDir(), "store")
	if r := crowfly("serve", dir, "--read-only", "--listen", "127.0.0.1:0"); r.code != exitError {
		t.Errorf("no store: exit code %d", r.code)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("a store was made")
	}
	_, url, _ := serve(t, dir)
	if status, _ := request(t, "PUT", url+"/k", "v"); status != 201 {
		t.Fatal(status)
	}
	c, other, _ := serve(t, dir, "--read-only", "--verify", "always")
	eventually(t, "the other server shows the value", func() bool {
		_, got := request(t, "GET", other+"/k", "")
		return got == "v"
	})
	for _, method := range []string{"PUT", "DELETE"} {
		if status, got := request(t, method, other+"/k", map[string]string{"PUT": "w"}[method]); status != 403 || !strings.Contains(got, "read") {
			t.Errorf("%s: status %d %s", method, status, got)
		}
	}
	request(t, "PUT", url+"/k", "new")
	eventually(t, "the other server shows the new value", func() bool {
		_, got := request(t, "GET", other+"/k", "")
		return got == "new"
	})
	if status, _ := request(t, "GET", other+"/-/readyz", ""); status != 200 {
		t.Errorf("readyz: %d", status)
	}
	c.Process.Signal(os.Interrupt)
	if code, talk := c.exit(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, talk)
	}
}

// TestServeFailsClean promises that a server which can't start leaves no store
// where none was.
func TestServeFailsClean(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := filepath.Join(t.TempDir(), "store")
	for _, args := range [][]string{
		{"--listen", taken.Addr().String()},
		{"--listen", "127.0.0.1:0", "--metrics", taken.Addr().String()},
		{"--listen", "127.0.0.1:0", "--token-file", filepath.Join(dir, "none")},
		{"--listen", "127.0.0.1:0", "--log-file", filepath.Join(dir, "none")},
		{"--listen", "127.0.0.1:0", "--sync", "sometimes"},
		{"--listen", "127.0.0.1:0", "--verify", "no"},
		{"--listen", "127.0.0.1:0", "--space-target", "0.5"},
		{"--listen", "127.0.0.1:0", "--space-target", "NaN"},
		{"--listen", "127.0.0.1:0", "--compaction-rate=-1"},
		{"--listen", "127.0.0.1:0", "--min-rate=-1"},
		{"--listen", "127.0.0.1:0", "--max-body", "0"},
		{"--listen", "127.0.0.1:0", "--max-body", fmt.Sprint(int64(db.MaxValue) + 1)},
		{"--listen", "127.0.0.1:0", "--max-in-flight", "0"},
		{"--listen", "127.0.0.1:0", "--allow-host", "http://x"},
		{"--listen", "127.0.0.1:0", "--cors-origin", "*"},
	} {
		r := crowfly(append([]string{"serve", dir}, args...)...)
		if r.code == exitOK || r.err == "" {
			t.Errorf("%q: exit code %d %s", args, r.code, r.err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Fatalf("%q has made %s", args, dir)
		}
	}
}

// TestServeLimits promises that --max-body and --allow-host do what they say.
func TestServeLimits(t *testing.T) {
	needSignals(t)
	_, url, _ := serve(t, filepath.Join(t.TempDir(), "store"), "--max-body", "10", "--allow-host", "Blobs.Example")
	if status, _ := request(t, "PUT", url+"/k", "0123456789"); status != 201 {
		t.Errorf("10 bytes: status %d", status)
	}
	if status, _ := request(t, "PUT", url+"/k", "0123456789a"); status != 413 {
		t.Errorf("11 bytes: status %d", status)
	}
	for host, want := range map[string]int{"blobs.example": 200, "BLOBS.example:8443": 200, "localhost": 200, "other.example": 421, "x.blobs.example": 421} {
		for _, path := range []string{"/k", "/?limit=1"} { // with and without the fast path
			req, err := http.NewRequest("GET", url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s%s: status %d, want %d", host, path, resp.StatusCode, want)
			}
		}
	}
}
