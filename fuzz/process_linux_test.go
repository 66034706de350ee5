package fuzz

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// roles are what the test binary can be as another process.
var roles = map[string]func(args []string) error{
	"killed":  beKilled,
	"torn":    beTorn,
	"opener":  beOpener,
	"parent":  beParent,
	"beside":  beBeside,
	"obeying": beObeying,
}

const roleVariable = "CROWFLY_TEST_ROLE"

// TestMain lets the test binary play another process.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	// Collections come by the thousand here, since stores do, and each would walk
	// the memory profile: a third of the time of the campaigns.
	runtime.MemProfileRate = 0
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is another process. It talks in lines.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err bytes.Buffer
}

// newChild prepares a process that ends with the test at the latest.
func newChild(t *testing.T, role string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.Command(os.Args[0], args...)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	c.cmd.Stderr = &c.err
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *child) start() *child {
	c.t.Helper()
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	return c
}

func startChild(t *testing.T, role string, args ...string) *child {
	t.Helper()
	return newChild(t, role, args...).start()
}

// hear returns the next line, or ok false if there are no more: of a process
// that was killed the last one may be cut short and does not count.
func (c *child) hear() (line string, ok bool) {
	line, err := c.out.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err == nil
}

// expect hears a line that has to be there.
func (c *child) expect() string {
	c.t.Helper()
	line, ok := c.hear()
	if !ok {
		c.t.Fatalf("child ends: %v: %s", c.cmd.Wait(), c.err.String())
	}
	return line
}

// ask says a line and hears the answer.
func (c *child) ask(line string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.expect()
}

// end waits for the end of a child that should come to it by itself once it
// can hear nothing any more.
func (c *child) end() {
	c.t.Helper()
	c.in.Close()
	io.Copy(io.Discard, c.out)
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("%v: %s", err, c.err.String())
	}
}

// kill ends the child at once.
func (c *child) kill() {
	c.t.Helper()
	c.cmd.Process.Kill()
	io.Copy(io.Discard, c.out)
	c.mustBeKilled()
}

// mustBeKilled makes sure that the child, whose end was heard, had no other
// reason for it.
func (c *child) mustBeKilled() {
	c.t.Helper()
	err := c.cmd.Wait()
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		c.t.Fatalf("child was not killed: %v: %s", err, c.err.String())
	}
}

// answer is the child's side of ask: for every line it hears it says what reply
// makes of it.
func answer(reply func(line string) string) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if _, err := fmt.Println(reply(lines.Text())); err != nil {
			return err
		}
	}
	return lines.Err()
}

// skip says why a test can't run here. Where nothing may be skipped it fails.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
