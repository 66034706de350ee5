package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// oddTree has what trees can have on a system where names are bytes.
func oddTree() files {
	f := files{
		"empty":                    "",
		"deep/er/and/deeper/leaf":  "leaf",
		"with space":               "1",
		"häß/ü":                    "2",
		"line\nbreak":              "3",
		"\xff\xfe":                 "4",
		"back\\slash":              "5",
		"-dash/-":                  "6",
		".dot/.file":               "7",
		"a":                        "8",
		"a-b":                      "9",
		"..double":                 "10",
		"colon:c":                  "11",
		"page.html":                "<p>",
		"large":                    strings.Repeat("0123456789abcdef", batchBytes/16+1),
		"medium":                   strings.Repeat("fedcba9876543210", batchBytes/32),
		strings.Repeat("n", 255):   "long",
		"one/" + "\x01\x1b[31mred": "12",
	}
	for i := range batchValues + 50 {
		f[fmt.Sprintf("many/%d", i)] = strings.Repeat("m", i)
	}
	return f
}

// addSkipped adds what import leaves out, and returns it with the reasons.
func addSkipped(t *testing.T, dir string) map[string]string {
	t.Helper()
	for _, err := range []error{
		os.Symlink("empty", filepath.Join(dir, "link")),
		os.Symlink("/nowhere", filepath.Join(dir, "deep/dangling")),
		os.Symlink(".", filepath.Join(dir, "deep/loop")),
		os.Mkdir(filepath.Join(dir, "nothing"), 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return map[string]string{
		"link": "symbolic link", "deep/dangling": "symbolic link", "deep/loop": "symbolic link",
		"nothing": "empty directory", "socket": "special file",
	}
}

func TestTreeRoundTrip(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("names are bytes on Linux only")
	}
	tmp := t.TempDir()
	tree, dir, out := filepath.Join(tmp, "tree"), filepath.Join(tmp, "store"), filepath.Join(tmp, "out")
	f := oddTree()
	f.write(t, tree)
	skipped := addSkipped(t, tree)

	r := crowfly("import", dir, tree, "-v", "--json")
	if r.code != exitOK {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	list := events(t, r.out)
	for _, item := range list.of("stored") {
		if content, ok := f[item.key]; !ok || int64(len(content)) != *item.Size {
			t.Errorf("%q was stored with %d bytes", item.key, *item.Size)
		}
	}
	for _, item := range list.of("skipped") {
		if skipped[item.key] != item.Reason {
			t.Errorf("%q was skipped: %s", item.key, item.Reason)
		}
		if !strings.Contains(r.err, fmt.Sprintf("%q", item.key)) {
			t.Errorf("nobody was told about %q", item.key)
		}
	}
	if len(list.of("stored")) != len(f) || len(list.of("skipped")) != len(skipped) || len(list.of("failed")) != 0 {
		t.Errorf("%d stored, %d skipped, %d failed",
			len(list.of("stored")), len(list.of("skipped")), len(list.of("failed")))
	}
	s := objects[jsonSummary](t, list.summary)[0]
	if s.Files != len(f) || s.Skipped != len(skipped) || s.Failed != 0 || s.Bytes == 0 {
		t.Errorf("%+v", s)
	}
	if got := mustRun(t, "get", dir, "häß/ü"); got != "2" {
		t.Errorf("got %q", got)
	}
	if got := mustRun(t, "stat", dir, "page.html"); !strings.Contains(got, "text/html") {
		t.Error(got)
	}

	mustRun(t, "export", dir, out)
	sameTree(t, tree, out)
	mustRun(t, "import", dir, tree) // over itself
	mustRun(t, "export", dir, out, "--force")
	sameTree(t, tree, out)
}

// eventList is what import and export print as JSON.
type eventList struct {
	items   []event
	summary string
}

type event struct {
	jsonItem
	key string
}

func events(t *testing.T, out string) (list eventList) {
	t.Helper()
	body := strings.TrimSuffix(out, "\n")
	cut := strings.LastIndex(body, "\n") + 1
	for _, item := range objects[jsonItem](t, out[:cut]) {
		list.items = append(list.items, event{item, item.Key + string(item.Base64)})
	}
	list.summary = out[cut:]
	return list
}

func (l eventList) of(kind string) (items []event) {
	for _, item := range l.items {
		if item.Event == kind {
			items = append(items, item)
		}
	}
	return items
}

func TestImportSingleFile(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	files{"some/where/file.txt": "content"}.write(t, tmp)
	mustRun(t, "import", dir, filepath.Join(tmp, "some/where/file.txt"))
	if out := mustRun(t, "ls", dir); out != "file.txt\n" {
		t.Errorf("%q", out)
	}
	out := filepath.Join(tmp, "out")
	mustRun(t, "export", dir, out)
	sameTree(t, filepath.Join(tmp, "some/where"), out)
}

func TestImportThroughLink(t *testing.T) {
	tmp := t.TempDir()
	dir, link := filepath.Join(tmp, "store"), filepath.Join(tmp, "link")
	files{"tree/a/b": "content"}.write(t, tmp)
	if err := os.Symlink("tree", link); err != nil {
		t.Skip(err)
	}
	mustRun(t, "import", dir, link)
	if out := mustRun(t, "ls", dir); out != "a/b\n" {
		t.Errorf("%q", out)
	}
}

// One file that can't be stored keeps no other from it.
func TestImportFailures(t *testing.T) {
	tmp := t.TempDir()
	tree, dir := filepath.Join(tmp, "tree"), filepath.Join(tmp, "store")
	files{"a": "1", "large": "", "z": "2"}.write(t, tree)
	if err := os.Truncate(filepath.Join(tree, "large"), db.MaxValue+1); err != nil {
		t.Fatal(err)
	}
	r := crowfly("import", dir, tree, "--json")
	failed := events(t, r.out).of("failed")
	if r.code != exitError || len(failed) != 1 || failed[0].key != "large" {
		t.Errorf("exit code %d, failed %v", r.code, failed)
	}
	if !strings.Contains(r.err, `failed "large": value is larger`) {
		t.Error(r.err)
	}
	if out := mustRun(t, "ls", dir); out != "a\nz\n" {
		t.Errorf("%q", out)
	}
}

// A store inside of the tree does not swallow itself.
func TestImportAroundStore(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	files{"file": "content"}.write(t, tmp)
	mustPut(t, dir, "key", "value")
	r := crowfly("import", dir, tmp)
	if out := mustRun(t, "ls", dir); r.code != exitOK || out != "file\nkey\n" || !strings.Contains(r.err, "the store itself") {
		t.Errorf("exit code %d, keys %q\n%s", r.code, out, r.err)
	}
}

func TestExportRefusals(t *testing.T) {
	for _, test := range []struct {
		keys    []string
		refused []string
	}{
		{[]string{"../escape", "fine"}, []string{"../escape"}},
		{[]string{"a/../../b"}, []string{"a/../../b"}},
		{[]string{"a/./b", "."}, []string{".", "a/./b"}},
		{[]string{".."}, []string{".."}},
		{[]string{"/etc/passwd"}, []string{"/etc/passwd"}},
		{[]string{"a//b"}, []string{"a//b"}},
		{[]string{"dir/"}, []string{"dir/"}},
		{[]string{"/"}, []string{"/"}},
		{[]string{"a", "a-b", "a/b", "a/c"}, []string{"a"}},
		{[]string{"a", "a/b", "a/b/c"}, []string{"a", "a/b"}},
	} {
		tmp := t.TempDir()
		dir, out := filepath.Join(tmp, "store"), filepath.Join(tmp, "out")
		for _, key := range test.keys {
			mustPut(t, dir, key, "value")
		}
		r := crowfly("export", dir, out, "--json", "--force")
		var refused []string
		for _, item := range events(t, r.out).of("failed") {
			refused = append(refused, item.key)
			if !strings.Contains(r.err, fmt.Sprintf("%q", item.key)) {
				t.Errorf("nobody was told about %q", item.key)
			}
		}
		if r.code != exitError || !slices.Equal(refused, test.refused) {
			t.Errorf("export of %q: exit code %d, refused %q", test.keys, r.code, refused)
		}
		if names := regularFiles(t, tmp); slices.ContainsFunc(names, func(s string) bool { return !strings.HasPrefix(s, "store") }) {
			t.Errorf("export of %q wrote %q", test.keys, names)
		}
		if _, err := os.Stat(out); !os.IsNotExist(err) {
			t.Errorf("export of %q created its directory", test.keys)
		}
	}
}

// No command line can hold a NUL byte, but other programs write to stores too.
func TestExportNUL(t *testing.T) {
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	store, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put([]byte("a\x00b"), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if r := crowfly("export", dir, filepath.Join(tmp, "out")); r.code != exitError || !strings.Contains(r.err, `"a\x00b": has a NUL byte`) {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

func TestExportExisting(t *testing.T) {
	tmp := t.TempDir()
	dir, out := filepath.Join(tmp, "store"), filepath.Join(tmp, "out")
	mustPut(t, dir, "a", "new")
	mustPut(t, dir, "b", "new")
	files{"b": "old", "other": "stays"}.write(t, out)

	if r := crowfly("export", dir, out); r.code != exitError || !strings.Contains(r.err, `"b": the file exists`) {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if _, err := os.Stat(filepath.Join(out, "a")); err == nil || mustRead(t, filepath.Join(out, "b")) != "old" {
		t.Error("something was written")
	}
	mustRun(t, "export", dir, out, "--force")
	for name, want := range (files{"a": "new", "b": "new", "other": "stays"}) {
		if got := mustRead(t, filepath.Join(out, name)); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if r := crowfly("export", dir, dir, "--force"); r.code != exitError || !strings.Contains(r.err, "the store itself") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

// What lies in the target can't lead an export out of it.
func TestExportStaysInside(t *testing.T) {
	tmp := t.TempDir()
	dir, out, outside := filepath.Join(tmp, "store"), filepath.Join(tmp, "out"), filepath.Join(tmp, "outside")
	files{"outside/file": "untouched", "out/x": ""}.write(t, tmp)
	if err := os.Symlink(outside, filepath.Join(out, "link")); err != nil {
		t.Skip(err)
	}
	if err := os.Symlink(filepath.Join(outside, "file"), filepath.Join(out, "file")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, dir, "link/file", "written")
	if r := crowfly("export", dir, out, "--force"); r.code != exitError {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	mustRun(t, "rm", dir, "link/file")
	mustPut(t, dir, "file", "written")
	mustRun(t, "export", dir, out, "--force")
	if got := mustRead(t, filepath.Join(outside, "file")); got != "untouched" {
		t.Errorf("the file outside is %q", got)
	}
	if got := mustRead(t, filepath.Join(out, "file")); got != "written" {
		t.Errorf("the file inside is %q", got)
	}
}

// ancestors must agree with a look at all pairs of keys.
func TestAncestors(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var keys []string
		for range 1 + random.IntN(8) {
			key := make([]byte, 1+random.IntN(5))
			for i := range key {
				key[i] = "a/-b"[random.IntN(4)]
			}
			keys = append(keys, string(key))
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)

		var want, got []string
		for _, dir := range keys {
			if slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, dir+"/") }) {
				want = append(want, dir)
			}
		}
		var a ancestors
		for _, key := range keys {
			if parent, ok := a.next(key); ok {
				got = append(got, parent)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("of %q directories are %q, got %q", keys, want, got)
		}
	}
}

func TestProgress(t *testing.T) {
	var screen bytes.Buffer
	p := &progress{w: &screen, on: true}
	for range 1000 {
		p.draw(func() string { return "line" })
	}
	p.clear()
	p.clear()
	if got := screen.String(); got != "\r\x1b[Kline\r\x1b[K" {
		t.Errorf("%q", got)
	}
	screen.Reset()
	(&progress{w: &screen}).draw(func() string { return "line" })
	if screen.Len() > 0 {
		t.Errorf("drawn although nobody looks: %q", screen.String())
	}
}

// A tree that nobody made for this test.
func TestRealTree(t *testing.T) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no go command:", err)
	}
	tree := filepath.Join(strings.TrimSpace(string(goroot)), "src", "net")
	if _, err := os.Stat(tree); err != nil {
		t.Skip(err)
	}
	tmp := t.TempDir()
	dir, out := filepath.Join(tmp, "store"), filepath.Join(tmp, "out")
	begin := time.Now()
	mustRun(t, "import", dir, tree)
	mustRun(t, "export", dir, out)
	t.Log("import and export took", time.Since(begin))
	sameTree(t, tree, out)
}

// TestImportOddDates promises that a file whose date the store can't hold is stored
// with the nearest that it can, and keeps no other from being stored.
func TestImportOddDates(t *testing.T) {
	tmp := t.TempDir()
	tree, dir := filepath.Join(tmp, "tree"), filepath.Join(tmp, "store")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		name := filepath.Join(tree, fmt.Sprint("f", i))
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if at := time.Unix(9223372037, 0); i == 7 {
			if err := os.Chtimes(name, at, at); err != nil {
				t.Skipf("the file system has no such date: %v", err)
			}
		}
	}
	mustRun(t, "import", dir, tree)
	if out := mustRun(t, "ls", dir); strings.Count(out, "\n") != 20 {
		t.Errorf("stored: %q", out)
	}
	mustRun(t, "put", dir, filepath.Join(tree, "f7"))
}

// TestBatcherInvalid promises that a value which turns out in the batch to be no
// fit for a store is reported, and all others are stored.
func TestBatcherInvalid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	store, err := openWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var talk strings.Builder
	e := &env{out: bufio.NewWriter(io.Discard), err: &talk}
	b := &batcher{store: store, report: newReport(e, "file", false, false), event: "stored"}
	odd := &db.Metadata{ModTime: time.Unix(1<<40, 0)}
	for i := range 10 {
		var meta *db.Metadata
		if i == 3 {
			meta = odd
		}
		if err := b.add(fmt.Sprint("k", i), []byte("v"), meta); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	if b.report.files != 9 || len(b.report.failed) != 1 || b.report.failed[0].key != "k3" {
		t.Errorf("%d stored, failed %v", b.report.files, b.report.failed)
	}
}
