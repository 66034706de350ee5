package cli

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/server"
)

// talker is a connection on which requests are written by hand.
type talker struct {
	*testing.T
	net.Conn
	in *bufio.Reader
}

func talkTo(t *testing.T, url string) talker {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return talker{t, c, bufio.NewReader(c)}
}

// say writes, and hear reads the head of an answer.
func (c talker) say(text string) {
	c.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.Fatal(err)
	}
}

func (c talker) hear() *http.Response {
	c.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.Fatal(err)
	}
	return resp
}

// wantSealed fails if a store was not closed as it should be.
func wantSealed(t *testing.T, dir string) {
	t.Helper()
	for _, seg := range objects[server.StoreStats](t, mustRun(t, "stat", dir, "--json"))[0].Segments {
		if seg.Active {
			t.Errorf("%s was not sealed", seg.File)
		}
	}
}

// After SIGTERM requests under way come to their end, on connections that then
// end, idle ones end at once and new ones are refused. The store is closed with
// what was written meanwhile, and the exit code is that of success. Method: the
// grace period is an hour, and an upload and a download stand still until all else
// has been seen.
func TestServeDrains(t *testing.T) {
	needSignals(t)
	dir := filepath.Join(t.TempDir(), "store")
	c, url, _ := serve(t, dir, "--grace", "1h")
	large := strings.Repeat("0123456789abcdef", 2<<20)
	request(t, "PUT", url+"/large", large)

	fresh, idle, idleSlow, down, up := talkTo(t, url), talkTo(t, url), talkTo(t, url), talkTo(t, url), talkTo(t, url)
	for conn, query := range map[talker]string{idle: "", idleSlow: "?x"} { // on either way
		conn.say("GET /none" + query + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
		io.Copy(io.Discard, conn.hear().Body)
	}
	down.say("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	body := down.hear().Body
	up.say(fmt.Sprintf("PUT /up HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(large)))
	if line, err := up.in.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q %v", line, err)
	}
	up.in.ReadString('\n')
	up.say(large[:len(large)/2])

	c.Process.Signal(syscall.SIGTERM)
	for name, conn := range map[string]talker{"new": fresh, "idle": idle, "idle and net/http's": idleSlow} {
		if n, err := io.Copy(io.Discard, conn.in); n != 0 || os.IsTimeout(err) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	if conn, err := net.Dial("tcp", fresh.RemoteAddr().String()); err == nil {
		conn.Close()
		t.Error("a new connection is not refused")
	}
	up.say(large[len(large)/2:])
	if resp := up.hear(); resp.StatusCode != 201 || !resp.Close {
		t.Errorf("upload: %s, Connection: close %v", resp.Status, resp.Close)
	}
	if got, err := io.ReadAll(body); err != nil || string(got) != large {
		t.Errorf("download: %d bytes, %v", len(got), err)
	}
	if n, err := io.Copy(io.Discard, up.in); n != 0 || err != nil {
		t.Errorf("after the upload: %d bytes, %v", n, err)
	}
	if code, talk := c.exit(t); code != exitOK || !strings.Contains(talk, "stopping") {
		t.Errorf("exit code %d: %s", code, talk)
	}
	wantSealed(t, dir)
	if got := mustRun(t, "get", dir, "up"); got != large {
		t.Errorf("stored %d bytes", len(got))
	}
}
