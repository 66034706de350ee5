package cli

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// childEnv makes the test binary behave as crowfly itself.
const childEnv = "CROWFLY_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// result is what a run of crowfly left.
type result struct {
	code     int
	out, err string
}

// crowfly runs a command in this process.
func crowfly(args ...string) result { return crowflyWith(nil, args...) }

func crowflyWith(stdin io.Reader, args ...string) result {
	var out, err bytes.Buffer
	code := run(args, stdin, &out, &err)
	return result{code, out.String(), err.String()}
}

// mustRun runs a command that has to succeed and returns its output.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	r := crowfly(args...)
	if r.code != exitOK {
		t.Fatalf("crowfly %q: exit code %d\n%s", args, r.code, r.err)
	}
	return r.out
}

// mustPut stores a value.
func mustPut(t *testing.T, dir, key, value string) {
	t.Helper()
	if r := crowflyWith(strings.NewReader(value), "put", dir, "--key="+key, "-"); r.code != exitOK {
		t.Fatalf("put %q: exit code %d\n%s", key, r.code, r.err)
	}
}

// child is crowfly in a process of its own.
type child struct {
	*exec.Cmd
	out, err *bufio.Reader
	hangUp   func() error // closes our end of its standard error
}

// start starts a child that is killed at the latest when the test ends.
func start(t *testing.T, args ...string) *child {
	t.Helper()
	return startReading(t, nil, args...)
}

// startPiped starts a child and returns the end of a pipe to its standard
// input.
func startPiped(t *testing.T, args ...string) (*child, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	return startReading(t, r, args...), w
}

func startReading(t *testing.T, stdin *os.File, args ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	return startCommand(t, cmd)
}

// startCommand starts a child with a command that ends in one.
func startCommand(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{Cmd: cmd}
	c.Env = append(c.Environ(), childEnv+"=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	talk, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out, c.err, c.hangUp = bufio.NewReader(out), bufio.NewReader(talk), talk.Close
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return c
}

// exit waits for the end of a child, which must come soon.
func (c *child) exit(t *testing.T) (code int, talk string) {
	t.Helper()
	late := time.AfterFunc(10*time.Second, func() {
		t.Error("the child does not end")
		c.Process.Kill()
	})
	defer late.Stop()
	rest, err := io.ReadAll(c.err)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	return c.ProcessState.ExitCode(), string(rest)
}

// files is a directory tree as a test sees it: contents by slash path.
type files map[string]string

func (f files) write(t *testing.T, dir string) {
	t.Helper()
	for name, content := range f {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// sameTree requires both trees to have the same regular files, with the same
// contents and modification times. Other things in them don't count.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	wantNames, gotNames := regularFiles(t, want), regularFiles(t, got)
	if !slices.Equal(wantNames, gotNames) {
		t.Fatalf("the trees have other files:\n%q\n%q", wantNames, gotNames)
	}
	for _, name := range wantNames {
		a, b := filepath.Join(want, name), filepath.Join(got, name)
		if mustRead(t, a) != mustRead(t, b) {
			t.Errorf("%s has other contents", name)
		}
		if x, y := modTime(t, a), modTime(t, b); !x.Equal(y) {
			t.Errorf("%s was modified %v, not %v", name, y, x)
		}
	}
}

func regularFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			path, err = filepath.Rel(dir, path)
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func modTime(t *testing.T, name string) time.Time {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// state describes all files of a store but the lock: nothing was written if it
// is the same before and after.
func state(t *testing.T, dir string) (lines []string) {
	t.Helper()
	for _, name := range regularFiles(t, dir) {
		if name == "LOCK" {
			continue
		}
		path := filepath.Join(dir, name)
		lines = append(lines, fmt.Sprintf("%s %v %x", name, modTime(t, path), sha256.Sum256([]byte(mustRead(t, path)))))
	}
	return lines
}

// objects decodes output of one JSON object a line.
func objects[T any](t *testing.T, out string) (list []T) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	for dec.More() {
		var v T
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		list = append(list, v)
	}
	if n := strings.Count(out, "\n"); n != len(list) {
		t.Fatalf("%d objects on %d lines", len(list), n)
	}
	return list
}

func TestExitCodes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mustPut(t, dir, "key", "value")
	missing := filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct {
		args string
		code int
		talk string // on stderr
	}{
		{"--help", exitOK, ""},
		{"put --help", exitOK, ""},
		{"version", exitOK, ""},
		{"get DIR key", exitOK, ""},
		{"ls DIR nosuchprefix", exitOK, ""},
		{"", exitUsage, "expected one of"},
		{"fly DIR", exitUsage, "unexpected argument"},
		{"get DIR", exitUsage, "<key>"},
		{"get DIR key --upside-down", exitUsage, "upside-down"},
		{"get DIR EMPTY", exitUsage, "1 to 65535"},
		{"get DIR LONG", exitUsage, "65536"},
		{"rm DIR key EMPTY", exitUsage, "1 to 65535"},
		{"get DIR key --range 1", exitUsage, "FIRST-LAST"},
		{"get DIR key --range 3-2", exitUsage, "FIRST-LAST"},
		{"get DIR key --range 5-", exitError, "has 5 bytes"},
		{"put DIR --key key DIR/LOCK --if-match 1-1", exitUsage, "not a version"},
		{"put DIR --key key DIR/LOCK --if-match 0000000000000001-1 --if-absent", exitUsage, "can't be used together"},
		{"put DIR --key key DIR/LOCK --if-match 0000000000000001-1", exitCondition, `"key"`},
		{"put DIR --key key DIR/LOCK --if-absent", exitCondition, `"key"`},
		{"cp DIR OUT key --prefix k", exitUsage, "either"},
		{"cp DIR DIR", exitError, "the source itself"},
		{"cp MISSING OUT", exitError, "MISSING"},
		{"completion", exitUsage, "<shell>"},
		{"completion csh", exitUsage, "bash"},
		{"head DIR other", exitNotFound, `"other"`},
		{"get DIR other", exitNotFound, `"other"`},
		{"stat DIR other", exitNotFound, `"other"`},
		{"rm DIR other", exitNotFound, `"other"`},
		{"get MISSING key", exitError, "MISSING"},
		{"ls MISSING", exitError, "MISSING"},
		{"stat MISSING", exitError, "MISSING"},
		{"rm MISSING key", exitError, "MISSING"},
		{"export MISSING OUT", exitError, "MISSING"},
		{"verify MISSING", exitError, "MISSING"},
		{"repair MISSING", exitError, "MISSING"},
		{"verify", exitUsage, "<dir>"},
		{"repair DIR --hard", exitUsage, "hard"},
		{"verify DIR", exitOK, "0 damaged"},
		{"compact MISSING", exitError, "MISSING"},
		{"compact DIR", exitOK, "before"},
		{"stat http://127.0.0.1:1 key", exitUsage, "curl -I"},
		{"repair DIR", exitOK, "DIR is whole, nothing was changed"},
		{"import OUT MISSING", exitError, "MISSING"},
		{"put OUT --key key MISSING", exitError, "MISSING"},
		{"put OUT key DIR/LOCK", exitError, "open key:"},
		{"put OUT DIR/LOCK MISSING", exitError, "MISSING"},
		{"put OUT DIR", exitError, "is a directory"},
		{"put OUT", exitUsage, "<file>"},
		{"put OUT -", exitUsage, "--key"},
		{"put OUT --key key", exitUsage, "<file>"},
		{"put OUT --key key DIR/LOCK DIR/LOCK", exitUsage, "for one file"},
		{"put OUT DIR/LOCK LOCK", exitUsage, `both be stored as "LOCK"`},
		{"put OUT --key EMPTY DIR/LOCK", exitUsage, "1 to 65535"},
		{"serve DIR --listen 0.0.0.0:0", exitError, "loopback"},
		{"serve DIR --listen 127.0.0.1:0 --metrics 0.0.0.0:0", exitError, "metrics: listen on 0.0.0.0:0: not a loopback"},
		{"serve DIR --listen 127.0.0.1:0 --metrics 127.0.0.1", exitError, "metrics: "},
		{"serve DIR --tls-cert MISSING", exitUsage, "--tls-key"},
		{"serve DIR --tls-cert= --tls-key=", exitUsage, "is empty"},
		{"serve DIR --token-file=", exitUsage, "--token-file is empty"},
		{"serve DIR --listen=", exitUsage, "--listen is empty"},
		{"serve DIR --max-conns=0", exitUsage, "above 0"},
		{"serve DIR --max-in-flight=-1", exitUsage, "above 0"},
		{"serve DIR --tls-cert MISSING --tls-key MISSING", exitError, "MISSING"},
	} {
		words := strings.NewReplacer("DIR", dir, "MISSING", missing, "OUT", missing+"-too")
		args := strings.Fields(words.Replace(test.args))
		for i, arg := range args {
			args[i] = strings.NewReplacer("EMPTY", "", "LONG", strings.Repeat("k", 65536)).Replace(arg)
		}
		r := crowfly(args...)
		if r.code != test.code || !strings.Contains(r.err, words.Replace(test.talk)) || (r.err == "") != (test.talk == "") {
			t.Errorf("crowfly %s: exit code %d, want %d\n%s", test.args, r.code, test.code, r.err)
		}
		if r.code != exitOK && r.out != "" {
			t.Errorf("crowfly %s: output after an error: %s", test.args, r.out)
		}
	}
	for _, name := range []string{missing, missing + "-too"} {
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s was created", name)
		}
	}
}

func TestVersion(t *testing.T) {
	if out := mustRun(t, "version"); !strings.HasPrefix(out, "crowfly ") || strings.Count(out, "\n") != 1 {
		t.Errorf("%q", out)
	}
}

// A full disk behind standard output must not look like success.
func TestOutputFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mustPut(t, dir, "key", "value")
	for _, args := range [][]string{{"get", dir, "key"}, {"ls", dir}, {"stat", dir}, {"version"}} {
		var talk bytes.Buffer
		if code := run(args, nil, full{}, &talk); code != exitError {
			t.Errorf("%s: exit code %d", args[0], code)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestHelp promises that the help of each command shows how it is used, and that the
// version is there as a command and as a flag.
func TestHelp(t *testing.T) {
	parser, err := kong.New(&commands{}, kong.Vars{"version": "", "listen": "", "metrics": "", "metrics_address": ""})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Leaves(true) {
		out := mustRun(t, command.Name, "--help")
		if !strings.Contains(out, "Examples:\n\n  ") || !strings.Contains(out, "crowfly "+command.Name) {
			t.Errorf("%s --help has no examples:\n%s", command.Name, out)
		}
	}
	if flag, command := mustRun(t, "--version"), mustRun(t, "version"); flag != command || !strings.HasPrefix(flag, "crowfly ") {
		t.Errorf("--version says %q, version says %q", flag, command)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 files", 1: "1 file", 2: "2 files"} {
		if got := count(n, "file"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
