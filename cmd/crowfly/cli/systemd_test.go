package cli

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager is a service manager as a service sees it.
type manager struct {
	socket *net.UnixConn
	name   string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	needSignals(t)
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &manager{c, name}
}

// heard is the next thing that a service has to say.
func (m *manager) heard(t *testing.T) string {
	t.Helper()
	m.socket.SetReadDeadline(time.Now().Add(10 * time.Second))
	text := make([]byte, 100)
	n, err := m.socket.Read(text)
	if err != nil {
		t.Fatalf("nothing was heard: %v", err)
	}
	return string(text[:n])
}

// silent is whether a service that has ended said nothing.
func (m *manager) silent() bool {
	m.socket.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := m.socket.Read(make([]byte, 100))
	return err != nil
}

// start starts a server with a socket, if one is given. Only the child itself
// knows its process number.
func (m *manager) start(t *testing.T, l interface{ File() (*os.File, error) }, args ...string) *child {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", os.Args[0], "serve"}, args...)...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.name)
	if l != nil {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	}
	return startCommand(t, cmd)
}

// listenTCP opens a socket that a child gets.
func listenTCP(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// A server tells when it serves, and when it begins to stop, which is before the
// last request has ended. Method: a request that does not end.
func TestNotify(t *testing.T) {
	m := newManager(t)
	l := listenTCP(t, "127.0.0.1:0") // where the child can be found
	c := m.start(t, l, filepath.Join(t.TempDir(), "store"), "--grace", "300ms")
	if got := m.heard(t); got != "READY=1" {
		t.Errorf("%q", got)
	}
	url := "http://" + l.Addr().String()
	request(t, "PUT", url+"/whole", "value")
	upload(t, url+"/stalled")
	c.Process.Signal(syscall.SIGTERM)
	if got := m.heard(t); got != "STOPPING=1" {
		t.Errorf("%q", got)
	}
	if code, _ := c.exit(t); code != exitError || !m.silent() {
		t.Errorf("exit code %d", code)
	}
}

// A socket that is passed on is served in place of --listen, and requests may wait
// in it before. Method: the one of --listen could not be opened.
func TestSocketActivation(t *testing.T) {
	m := newManager(t)
	dir := t.TempDir()
	tcp := listenTCP(t, "127.0.0.1:0")
	unix, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	for name, l := range map[string]interface {
		net.Listener
		File() (*os.File, error)
	}{"tcp": tcp, "unix": unix.(*net.UnixListener)} {
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return net.Dial(name, l.Addr().String())
			},
		}}
		status := make(chan int, 1)
		go func() {
			resp, err := client.Get("http://localhost/-/readyz")
			if err != nil {
				t.Error(err)
				status <- 0
				return
			}
			resp.Body.Close()
			status <- resp.StatusCode
		}()
		c := m.start(t, l, filepath.Join(dir, name), "--listen", "0.0.0.0:7070")
		if got := <-status; got != http.StatusOK {
			t.Errorf("%s: status %d", name, got)
		}
		if line := c.greeting(t); !strings.Contains(line, l.Addr().String()) {
			t.Errorf("%s: %q", name, line)
		}
		if got := m.heard(t); got != "READY=1" {
			t.Errorf("%s: %q", name, got)
		}
		c.Process.Signal(syscall.SIGTERM)
		if code, talk := c.exit(t); code != exitOK || m.heard(t) != "STOPPING=1" {
			t.Errorf("%s: exit code %d: %s", name, code, talk)
		}
	}
}

// What others could connect to is not served, whoever has opened it, and not said
// to be. Nor is one of several sockets.
func TestBadSockets(t *testing.T) {
	m := newManager(t)
	open := listenTCP(t, "0.0.0.0:0")
	c := m.start(t, open, filepath.Join(t.TempDir(), "store"))
	if code, talk := c.exit(t); code != exitError || !strings.Contains(talk, "not a loopback address") || !m.silent() {
		t.Errorf("exit code %d: %s", code, talk)
	}

	t.Setenv("LISTEN_FDS", "2")
	c = m.start(t, nil, filepath.Join(t.TempDir(), "store"))
	if code, talk := c.exit(t); code != exitError || !strings.Contains(talk, `"2" sockets`) || !m.silent() {
		t.Errorf("exit code %d: %s", code, talk)
	}
}

// What was meant for another process is none of ours, and a service manager that
// does not listen is no reason to stop.
func TestOtherProcess(t *testing.T) {
	needSignals(t)
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	c, url, _ := serve(t, filepath.Join(t.TempDir(), "store"))
	if status, _ := request(t, "GET", url+"/-/healthz", ""); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	c.Process.Signal(syscall.SIGTERM)
	if code, talk := c.exit(t); code != exitOK || strings.Count(talk, "NOTIFY_SOCKET") != 2 {
		t.Errorf("exit code %d: %s", code, talk)
	}
}

// The unit files are such that systemd has nothing to say about them. Method:
// systemd-analyze, with the program of the test in place of the installed one.
func TestUnitFiles(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, name := range []string{"crowfly.service", "crowfly.socket"} {
		text := mustRead(t, filepath.Join("..", "systemd", name))
		name = filepath.Join(dir, name)
		text = strings.Replace(text, "/usr/local/bin/crowfly", os.Args[0], 1)
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
