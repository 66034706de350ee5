package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

func TestPutAndGet(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	source := filepath.Join(tmp, "source.css")
	long := strings.Repeat("long ", 500_000)
	files{"source.css": long}.write(t, tmp)
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	if err := os.Chtimes(source, old, old); err != nil {
		t.Fatal(err)
	}

	mustRun(t, "put", dir, "--key", "a/file", source)
	mustPut(t, dir, "piped.json", "{}")
	mustPut(t, dir, "empty", "")
	mustPut(t, dir, "-dash", "-")
	mustPut(t, dir, "\xff\n", "odd")
	for key, want := range map[string]string{
		"a/file": long, "piped.json": "{}", "empty": "", "-dash": "-", "\xff\n": "odd",
	} {
		if got := mustRun(t, "get", dir, "--", key); got != want {
			t.Errorf("get %q: %d bytes, want %d", key, len(got), len(want))
		}
	}

	copied := filepath.Join(tmp, "copied")
	mustRun(t, "get", dir, "a/file", "-o", copied)
	if mustRead(t, copied) != long || !modTime(t, copied).Equal(old) {
		t.Errorf("the copy is not the file, or was modified %v", modTime(t, copied))
	}
	for key, want := range map[string]string{"a/file": "text/css", "piped.json": "application/json"} {
		got := objects[jsonPlace](t, mustRun(t, "stat", dir, key, "--json"))[0]
		if !strings.HasPrefix(got.ContentType, want) {
			t.Errorf("%s has content type %q", key, got.ContentType)
		}
	}
}

func TestPutJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	r := crowflyWith(strings.NewReader("<svg/>"), "put", dir, "--key", "k&y", "-", "--content-type", "image/svg+xml", "--json")
	got := objects[jsonValue](t, r.out)[0]
	listed := objects[jsonValue](t, mustRun(t, "ls", dir, "--json"))[0]
	if got.Version != listed.Version || !got.Modified.Equal(listed.Modified) {
		t.Errorf("put says %+v, ls %+v", got, listed)
	}
	if got.Key != "k&y" || got.Size != 6 || got.ContentType != "image/svg+xml" || time.Since(got.Modified) > time.Minute {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(r.out, "k&y") {
		t.Errorf("escaped: %s", r.out)
	}
}

func TestPutTooLarge(t *testing.T) {
	tmp := t.TempDir()
	dir, large := filepath.Join(tmp, "store"), filepath.Join(tmp, "large")
	sparse(t, large, db.MaxValue+1)
	r := crowfly("put", dir, "--key", "key", large)
	if r.code != exitError || !strings.Contains(r.err, `"key"`) || !strings.Contains(r.err, "1099511627776") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("a store was created for it")
	}
}

func TestGetOutput(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links and permission bits")
	}
	tmp := t.TempDir()
	dir, out := filepath.Join(tmp, "store"), filepath.Join(tmp, "out")
	mustPut(t, dir, "key", "new")

	if r := crowfly("get", dir, "missing", "-o", filepath.Join(out, "file")); r.code != exitNotFound {
		t.Errorf("exit code %d", r.code)
	}
	if err := os.Mkdir(out, 0o777); err != nil {
		t.Fatal(err)
	}
	if r := crowfly("get", dir, "missing", "-o", filepath.Join(out, "file")); r.code != exitNotFound {
		t.Errorf("exit code %d", r.code)
	}
	if r := crowfly("get", dir, "key", "-o", out); r.code != exitError {
		t.Errorf("wrote to a directory: exit code %d", r.code)
	}
	if names := regularFiles(t, tmp); len(names) == 0 || strings.Contains(strings.Join(names, " "), "out/") {
		t.Errorf("left %q behind", names)
	}

	// What the link points to is replaced, keeps its permissions, and stays
	// whole for those who have it open.
	file, link := filepath.Join(out, "file"), filepath.Join(tmp, "link")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	mustRun(t, "get", dir, "key", "-o", link)
	info, err := os.Lstat(file)
	if err != nil || info.Mode() != 0o600 || mustRead(t, file) != "new" {
		t.Errorf("%v %v", info, err)
	}
	var before bytes.Buffer
	if _, err := before.ReadFrom(open); err != nil || before.String() != "old" {
		t.Errorf("the open file has %q %v", before.String(), err)
	}

	// A device is written to, not replaced.
	mustRun(t, "get", dir, "key", "-o", os.DevNull)
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("%v %v", info, err)
	}
}

func TestRm(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, key := range []string{"a", "b", "c", "-"} {
		mustPut(t, dir, key, key)
	}
	r := crowfly("rm", dir, "a", "missing", "-", "--json")
	if r.code != exitNotFound || !strings.Contains(r.err, `"missing"`) {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	want := []bool{true, false, true}
	for i, got := range objects[jsonRemoval](t, r.out) {
		if got.Removed != want[i] {
			t.Errorf("%+v", got)
		}
	}
	if got := mustRun(t, "ls", dir); got != "b\nc\n" {
		t.Errorf("left are %q", got)
	}
	if out := mustRun(t, "rm", dir, "b", "c"); out != "" {
		t.Errorf("printed %q", out)
	}
}

func TestLs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	keys := []string{"a", "a/1", "a/2", "b c", "line\nbreak", "z\xff"}
	for _, key := range keys {
		mustPut(t, dir, key, "four")
	}
	if got := mustRun(t, "ls", dir); got != strings.Join(keys, "\n")+"\n" {
		t.Errorf("%q", got)
	}
	if got := mustRun(t, "ls", dir, "a/"); got != "a/1\na/2\n" {
		t.Errorf("%q", got)
	}
	if got := mustRun(t, "ls", dir, "a/1", "-l"); !regexp.MustCompile(`^            4  2\S+Z  [0-9a-f]{16}-2       a/1\n$`).MatchString(got) {
		t.Errorf("%q", got)
	}
	for i, got := range objects[jsonValue](t, mustRun(t, "ls", dir, "--json")) {
		if got.Key+string(got.Base64) != keys[i] || got.Size != 4 || (got.Base64 != nil) != (i == 5) {
			t.Errorf("%+v", got)
		}
	}
}

func TestShown(t *testing.T) {
	for key, want := range map[string]string{
		"plain/key": "plain/key",
		"a b":       "a b",
		"häß":       "häß",
		"\x1b[2J":   `"\x1b[2J"`,
		"line\n":    `"line\n"`,
		"\xff":      `"\xff"`,
		`"quoted"`:  `"\"quoted\""`,
	} {
		if got := (&env{terminal: true}).shown(key); got != want {
			t.Errorf("on a terminal %q is shown as %s", key, got)
		}
		if got := (&env{}).shown(key); got != key {
			t.Errorf("%q is printed as %q", key, got)
		}
	}
}

func TestStat(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	mustPut(t, dir, "key", "some value")
	mustPut(t, dir, "other", "x")

	s := objects[server.StoreStats](t, mustRun(t, "stat", dir, "--json"))[0]
	if s.Keys != 2 || s.Sequence != 2 || s.Generation == 0 || len(s.Segments) == 0 || s.Live == 0 || s.Total < s.Live {
		t.Errorf("%+v", s)
	}
	for _, seg := range s.Segments {
		if seg.Active {
			t.Errorf("%s is active though nobody writes", seg.File)
		}
	}
	p := objects[jsonPlace](t, mustRun(t, "stat", dir, "key", "--json"))[0]
	if p.Key != "key" || p.Size != 10 || !strings.HasPrefix(p.Version, p.Checksum) {
		t.Errorf("%+v", p)
	}
	if got := mustRead(t, p.File)[p.Offset:][:p.Size]; got != "some value" {
		t.Errorf("%q lies there", got)
	}
	if got := mustRun(t, "stat", dir); !strings.Contains(got, "keys          2\n") || !strings.Contains(got, s.Segments[0].File) {
		t.Error(got)
	}
	if got := mustRun(t, "stat", dir, "key"); !strings.Contains(got, p.Version) || !strings.Contains(got, p.File) {
		t.Error(got)
	}
}

// Reading commands change nothing, and neither does a writer that has nothing
// to write.
func TestNothingWritten(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	mustPut(t, dir, "key", "value")
	mustPut(t, dir, "key", "value 2")
	before := state(t, dir)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "get", dir, "key")
	mustRun(t, "ls", dir)
	mustRun(t, "stat", dir)
	mustRun(t, "export", dir, filepath.Join(tmp, "out"))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if r := crowfly("rm", dir, "missing"); r.code != exitNotFound {
		t.Errorf("exit code %d", r.code)
	}
	if after := state(t, dir); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("the store was\n%q\nand is\n%q", before, after)
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 48 << 20: "48.0 MiB", 1 << 62: "4.0 EiB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

// TestPutFiles promises that files are stored under their names, all or, if one
// can't be opened, none.
func TestPutFiles(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	var files []string
	for _, name := range []string{"hello.txt", "b.bin"} {
		file := filepath.Join(tmp, name)
		if err := os.WriteFile(file, []byte("in "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if r := crowfly("put", dir, files[0], filepath.Join(tmp, "none")); r.code != exitError {
		t.Errorf("a missing file: exit code %d", r.code)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("a store was created for nothing")
	}
	mustRun(t, "put", dir, files[0], files[1])
	if out := mustRun(t, "ls", dir); out != "b.bin\nhello.txt\n" {
		t.Errorf("keys %q", out)
	}
	if out := mustRun(t, "get", dir, "hello.txt"); out != "in hello.txt" {
		t.Errorf("value %q", out)
	}
}

// TestPutNothing promises that a standard input which nothing was meant to come
// from does not replace a value by nothing.
func TestPutNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mustPut(t, dir, "key", "before")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	closed, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, in := range []*os.File{null, closed} {
		if r := crowflyWith(in, "put", dir, "--key", "key", "-"); r.code != exitError || !strings.Contains(r.err, "standard input") {
			t.Errorf("exit code %d: %s", r.code, r.err)
		}
	}
	if out := mustRun(t, "get", dir, "key"); out != "before" {
		t.Errorf("the value is %q now", out)
	}
	mustRun(t, "put", dir, "--key", "key", os.DevNull) // by name it is a file like others
	if out := mustRun(t, "get", dir, "key"); out != "" {
		t.Errorf("the value is %q now", out)
	}
}
