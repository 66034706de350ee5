package cli

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/server"
)

// random is n bytes that nothing can make shorter.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// sparse makes a file of n zeros that take no space.
func sparse(t *testing.T, name string, n int64) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, n); err != nil {
		t.Fatal(err)
	}
}

// noStrays requires that every file of a store counts.
func noStrays(t *testing.T, dir string) {
	t.Helper()
	blobs := 0
	for _, name := range regularFiles(t, dir) {
		switch {
		case strings.HasPrefix(name, "tmp-") && strings.HasSuffix(name, ".blob"):
			t.Errorf("%s is left", name)
		case strings.HasSuffix(name, ".blob"):
			blobs++
		}
	}
	if s := objects[server.StoreStats](t, mustRun(t, "stat", dir, "--json"))[0]; s.Blobs != blobs {
		t.Errorf("%d blobs count, %d are there", s.Blobs, blobs)
	}
}

// reopen opens a store for writing, which removes what does not count.
func reopen(t *testing.T, dir string) {
	t.Helper()
	if r := crowfly("rm", dir, "no such key"); r.code != exitNotFound {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
}

// A value too large for a record goes through pipes and comes back whole and
// in parts.
func TestLargeValue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	value := random(40 << 20)
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, bytes.NewReader(value))
		w.CloseWithError(err)
	}()
	put := crowflyWith(r, "put", dir, "--key", "large", "-", "--json")
	if put.code != exitOK {
		t.Fatalf("exit code %d: %s", put.code, put.err)
	}
	if got := objects[jsonValue](t, put.out)[0]; got.Size != int64(len(value)) {
		t.Errorf("%+v", got)
	}
	if got := mustRun(t, "get", dir, "large"); got != string(value) {
		t.Errorf("%d other bytes", len(got))
	}
	copied := filepath.Join(t.TempDir(), "copied")
	mustRun(t, "get", dir, "large", "-o", copied)
	if got := mustRead(t, copied); got != string(value) {
		t.Errorf("%d other bytes in the file", len(got))
	}
	mustRun(t, "put", dir, "--key", "from file", copied)
	if got := mustRun(t, "get", dir, "from file", "--range", "20000000-20000009"); got != string(value[20000000:20000010]) {
		t.Errorf("%q", got)
	}

	got := mustRun(t, "stat", dir)
	if !strings.Contains(got, "blobs         2 (80.0 MiB)") {
		t.Error(got)
	}
	noStrays(t, dir)
}

func TestGetRange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mustPut(t, dir, "key", "0123456789")
	mustPut(t, dir, "empty", "")
	for part, want := range map[string]string{
		"0-0": "0", "2-4": "234", "8-": "89", "8-100": "89", "-3": "789", "-100": "0123456789", "-0": "",
	} {
		if got := mustRun(t, "get", dir, "key", "--range="+part); got != want {
			t.Errorf("%s is %q, want %q", part, got, want)
		}
	}
	for _, part := range []string{"10-", "10-11"} {
		if r := crowfly("get", dir, "key", "--range", part); r.code != exitError || !strings.Contains(r.err, "has 10 bytes") {
			t.Errorf("%s: exit code %d: %s", part, r.code, r.err)
		}
	}
	for _, part := range []string{"", "-", "1", "1-0", "a-b", "+1-2", "1-2,4-5", "99999999999999999999-"} {
		if r := crowfly("get", dir, "key", "--range="+part); r.code != exitUsage {
			t.Errorf("%q: exit code %d", part, r.code)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	mustRun(t, "get", dir, "key", "--range", "1-2", "-o", out)
	if got := mustRead(t, out); got != "12" {
		t.Errorf("%q", got)
	}
}

func TestPutConditions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	large := random(17 << 20)
	put := func(value string, flags ...string) result {
		return crowflyWith(strings.NewReader(value), append([]string{"put", dir, "--key", "key", "-", "--json"}, flags...)...)
	}
	first := put("1", "--if-absent")
	if first.code != exitOK {
		t.Fatal(first)
	}
	version := objects[jsonValue](t, first.out)[0].Version
	second := put(string(large), "--if-match", `"`+version+`"`)
	if second.code != exitOK {
		t.Fatalf("exit code %d: %s", second.code, second.err)
	}
	for _, flags := range [][]string{{"--if-absent"}, {"--if-match", version}} {
		for _, value := range []string{"3", string(large)} {
			if r := put(value, flags...); r.code != exitCondition || r.out != "" {
				t.Errorf("%d bytes %s: exit code %d: %s", len(value), flags, r.code, r.err)
			}
		}
	}
	if r := crowflyWith(strings.NewReader("4"), "put", dir, "--key", "other", "-", "--if-match", version); r.code != exitCondition {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if got := mustRun(t, "get", dir, "key"); got != string(large) {
		t.Errorf("%d other bytes", len(got))
	}
	noStrays(t, dir)
}

// A condition that does not hold is found out before all of the value is read.
func TestPutConditionEarly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mustPut(t, dir, "key", "value")
	endless := &zeros{}
	if r := crowflyWith(endless, "put", dir, "--key", "key", "-", "--if-absent"); r.code != exitCondition {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if endless.read > 4*putAhead {
		t.Errorf("read %d bytes", endless.read)
	}
}

// zeros never ends.
type zeros struct{ read int }

func (z *zeros) Read(p []byte) (int, error) {
	z.read += len(p)
	return len(p), nil
}

// The rest of a file on standard input is the value.
func TestPutRestOfFile(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	files{"file": "skipped the rest"}.write(t, tmp)
	f, err := os.Open(filepath.Join(tmp, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(8, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if r := crowflyWith(f, "put", dir, "--key", "key", "-"); r.code != exitOK {
		t.Fatal(r)
	}
	if got := mustRun(t, "get", dir, "key"); got != "the rest" {
		t.Errorf("%q", got)
	}
}

// shrinkWhileRead cuts a file off as soon as crowfly writes some of it.
func shrinkWhileRead(t *testing.T, dir, file string, args ...string) result {
	t.Helper()
	var wait sync.WaitGroup
	stop := make(chan struct{})
	wait.Go(func() {
		for {
			if found, _ := filepath.Glob(filepath.Join(dir, "tmp-*.blob")); len(found) > 0 {
				if err := os.Truncate(file, 1<<20); err != nil {
					t.Error(err)
				}
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	r := crowfly(args...)
	close(stop)
	wait.Wait()
	return r
}

func TestShrinkingFile(t *testing.T) {
	tmp := t.TempDir()
	tree, dir := filepath.Join(tmp, "tree"), filepath.Join(tmp, "store")
	files{"tree/small": "value"}.write(t, tmp)
	large := filepath.Join(tree, "large")

	sparse(t, large, 2<<30)
	r := shrinkWhileRead(t, dir, large, "put", dir, "--key", "key", large)
	if r.code != exitError || !strings.Contains(r.err, "large changed while it was read") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if got := mustRun(t, "ls", dir); got != "" {
		t.Errorf("keys %q", got)
	}
	noStrays(t, dir)

	sparse(t, large, 2<<30)
	r = shrinkWhileRead(t, dir, large, "import", dir, tree)
	if r.code != exitError || !strings.Contains(r.err, `failed "large": changed while it was read`) {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if got := mustRun(t, "ls", dir); got != "small\n" {
		t.Errorf("keys %q", got)
	}
	noStrays(t, dir)
}

// What goes into a batch is read at once, and short contents are found too.
func TestShrunkInput(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	sparse(t, name, 10)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := newInput(t.Context(), f)
	if err != nil || in.size != 10 {
		t.Fatalf("%+v %v", in, err)
	}
	for _, size := range []int64{9, 0} {
		if err := os.Truncate(name, size); err != nil {
			t.Fatal(err)
		}
		if _, err := in.readAll(); err == nil || reason(err) != "changed while it was read" {
			t.Error(err)
		}
	}
}

// A signal in the middle of a value ends the put, although nothing more comes
// from standard input, and leaves nothing.
func TestInterruptPut(t *testing.T) {
	needSignals(t)
	for name, n := range map[string]int{"nothing yet": 0, "small": 1000, "large": 20 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			mustPut(t, dir, "key", "old")
			c, in := startPiped(t, "put", dir, "--key", "key", "-")
			if _, err := in.Write(random(n)); err != nil {
				t.Fatal(err)
			}
			if n > 16<<20 {
				waitForFile(t, filepath.Join(dir, "tmp-*.blob"))
			} else {
				time.Sleep(time.Second)
			}
			c.Process.Signal(os.Interrupt)
			if code, talk := c.exit(t); code != exitInterrupted || !strings.HasSuffix(talk, "crowfly: interrupted\n") {
				t.Errorf("exit code %d: %s", code, talk)
			}
			if got := mustRun(t, "get", dir, "key"); got != "old" {
				t.Errorf("%d bytes", len(got))
			}
			noStrays(t, dir)
		})
	}
}

func waitForFile(t *testing.T, pattern string) {
	t.Helper()
	const attempts = 6000 // a minute: under the race detector mapping a large value is reading it
	for range attempts {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("there is no %s", pattern)
}

// The same for the others: a file is there as a whole or not at all.
func TestInterruptOthers(t *testing.T) {
	needSignals(t)
	tmp := t.TempDir()
	dir, other, tree := filepath.Join(tmp, "store"), filepath.Join(tmp, "other"), filepath.Join(tmp, "tree")
	out := filepath.Join(tmp, "out")
	for _, name := range []string{tree, out} {
		if err := os.Mkdir(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	sparse(t, filepath.Join(tree, "large"), 1<<30)
	for _, test := range []struct {
		args    []string
		pattern string // of the file under way
	}{
		{[]string{"import", dir, tree}, filepath.Join(dir, "tmp-*.blob")},
		{[]string{"import", dir, tree}, ""},
		{[]string{"cp", dir, other}, filepath.Join(other, "tmp-*.blob")},
		{[]string{"export", dir, out}, filepath.Join(out, "large")},
		{[]string{"get", dir, "large", "-o", filepath.Join(out, "file")}, filepath.Join(out, ".crowfly-*")},
	} {
		if test.pattern == "" {
			mustRun(t, test.args...)
			continue
		}
		c := start(t, test.args...)
		waitForFile(t, test.pattern)
		c.Process.Signal(syscall.SIGTERM)
		if code, talk := c.exit(t); code != exitInterrupted {
			t.Errorf("%s: exit code %d: %s", test.args[0], code, talk)
		}
		if names := regularFiles(t, out); len(names) > 0 {
			t.Errorf("%s left %q", test.args[0], names)
		}
	}
	noStrays(t, dir)
	noStrays(t, other)
	if got := mustRun(t, "ls", other); got != "" {
		t.Errorf("keys %q", got)
	}
}

// A put that is killed leaves the old value or the new one, and after the next
// writer no file that does not count.
func TestKillPut(t *testing.T) {
	tmp := t.TempDir()
	value := random(40 << 20)
	begin := time.Now()
	if code := putPiped(t, filepath.Join(tmp, "timed"), value, time.Minute); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	took := time.Since(begin)
	for round := range 10 {
		dir := filepath.Join(tmp, fmt.Sprint("store", round))
		mustPut(t, dir, "key", "old")
		moment := time.Duration(rand.Int64N(int64(took)))
		code := putPiped(t, dir, value, moment)
		got := mustRun(t, "get", dir, "key")
		t.Logf("after %v: exit code %d, %d bytes", moment, code, len(got))
		reopen(t, dir)
		noStrays(t, dir)
		for _, got := range []string{got, mustRun(t, "get", dir, "key")} {
			if got != string(value) && (got != "old" || code == exitOK) {
				t.Errorf("%d bytes", len(got))
			}
		}
	}
}

// putPiped puts a value that comes through a pipe, in a process that is killed
// at some moment.
func putPiped(t *testing.T, dir string, value []byte, moment time.Duration) (code int) {
	t.Helper()
	c, in := startPiped(t, "put", dir, "--key", "key", "-")
	kill := time.AfterFunc(moment, func() { c.Process.Kill() })
	defer kill.Stop()
	in.Write(value) // fails if the child is gone
	in.Close()
	c.Wait()
	return c.ProcessState.ExitCode()
}

func TestMeter(t *testing.T) {
	var screen bytes.Buffer
	m := &meter{bar: progress{w: &screen, on: true}, start: time.Now(), total: 4 << 20}
	m.passed(1 << 20)
	if got := screen.String(); !strings.HasPrefix(got, "\r\x1b[K[======                  ]  25%  1.0 MiB of 4.0 MiB, ") {
		t.Errorf("%q", got)
	}
	if got := m.lineAfter(time.Second); !strings.HasSuffix(got, ", 1.0 MiB/s") {
		t.Errorf("%q", got)
	}
	m.total = -1
	if got := m.line(); !strings.HasPrefix(got, "1.0 MiB, ") {
		t.Errorf("%q", got)
	}
}
