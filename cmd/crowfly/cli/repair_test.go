package cli

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// fill makes a store of ten keys in several segments, and returns its contents.
func fill(t *testing.T, dir string) files {
	t.Helper()
	want := make(files)
	for i := range 10 {
		key := fmt.Sprint("key", i)
		want[key] = strings.Repeat(fmt.Sprintln("value", i), 300)
		mustPut(t, dir, key, want[key])
	}
	return want
}

// storeFiles returns the files of a store with a suffix or prefix.
func storeFiles(t *testing.T, dir, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(list) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, dir, err)
	}
	return list
}

// spoil changes a file.
func spoil(t *testing.T, file string, change func(b []byte) []byte) {
	t.Helper()
	if err := os.WriteFile(file, change([]byte(mustRead(t, file))), 0o666); err != nil {
		t.Fatal(err)
	}
}

// flip flips a bit of the value that ends with this text.
func flip(text string) func(b []byte) []byte {
	return func(b []byte) []byte {
		b[strings.LastIndex(string(b), text)] ^= 1
		return b
	}
}

// fileWith returns the segment that has a text in it.
func fileWith(t *testing.T, dir, text string) string {
	t.Helper()
	for _, file := range storeFiles(t, dir, "*.seg") {
		if strings.Contains(mustRead(t, file), text) {
			return file
		}
	}
	t.Fatalf("%q is nowhere in %s", text, dir)
	return ""
}

// values are all values of a store.
func values(t *testing.T, dir string) files {
	t.Helper()
	got := make(files)
	for _, key := range strings.Fields(mustRun(t, "ls", dir)) {
		got[key] = mustRun(t, "get", dir, key)
	}
	return got
}

// TestVerifyBesideServer promises that verify finds nothing wrong while a server
// takes writes, and that repair refuses a store that a server has open.
func TestVerifyBesideServer(t *testing.T) {
	needSignals(t)
	dir := filepath.Join(t.TempDir(), "store")
	fill(t, dir)
	c, url, _ := serve(t, dir)
	stop := make(chan bool)
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				request(t, "PUT", fmt.Sprint(url, "/", i%50), strings.Repeat("x", i*37%9000))
			}
		}
	})
	for range 20 {
		r := objects[jsonVerified](t, mustRun(t, "verify", dir, "--json"))
		if len(r) != 1 || r[0].Damage != 0 || r[0].Records < 10 || r[0].Bytes < 10*300*8 {
			t.Errorf("beside a server: %+v", r)
		}
	}
	if r := crowfly("repair", dir); r.code != exitError || !strings.Contains(r.err, dir+" is locked by another writer") {
		t.Errorf("repair beside a server: exit code %d: %s", r.code, r.err)
	}
	if r := crowfly("repair", dir, "--dry-run"); r.code != exitError || !strings.Contains(r.err, dir+" is locked by another writer") {
		t.Errorf("dry run beside a server: exit code %d: %s", r.code, r.err)
	}
	close(stop)
	writer.Wait()
	c.Process.Signal(syscall.SIGTERM)
	if code, talk := c.exit(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, talk)
	}
	mustRun(t, "verify", dir)
}

// TestVerifyAndRepair promises that verify reports all damage, with the key
// where it can be read, and writes nothing; that a dry run tells the same as a
// repair and writes nothing; and that a repair keeps all other values.
func TestVerifyAndRepair(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	want := fill(t, dir)
	for _, key := range []string{"key3", "key7"} {
		i := strings.TrimPrefix(key, "key")
		spoil(t, fileWith(t, dir, "value "+i), flip("value "+i))
	}
	before := state(t, dir)

	r := crowfly("verify", dir)
	if r.code != exitError || strings.Count(r.out, "\n") != 2 ||
		!strings.Contains(r.out, `value checksum, key "key3"`) || !strings.Contains(r.out, `value checksum, key "key7"`) {
		t.Errorf("verify: exit code %d: %s%s", r.code, r.out, r.err)
	}
	r = crowfly("verify", dir, "--json")
	found := objects[map[string]any](t, r.out)
	if r.code != exitError || len(found) != 3 || found[0]["event"] != "damage" ||
		found[0]["key"] == found[1]["key"] || !strings.HasSuffix(found[0]["file"].(string), ".seg") || found[0]["offset"] == nil || found[2]["event"] != "summary" || found[2]["damage"] != 2.0 {
		t.Errorf("verify --json: exit code %d: %v", r.code, found)
	}
	dry := mustRun(t, "repair", dir, "--dry-run")
	if !slices.Equal(before, state(t, dir)) {
		t.Error("verify or a dry run wrote something")
	}
	if out := mustRun(t, "repair", dir); out != dry ||
		!strings.Contains(out, `lost: "key3"`) || !strings.Contains(out, `lost: "key7"`) || !strings.Contains(out, "trash: trash/") {
		t.Errorf("repair: %s\nthe dry run: %s", out, dry)
	}
	delete(want, "key3")
	delete(want, "key7")
	if got := values(t, dir); !maps.Equal(got, want) {
		t.Errorf("after the repair there is %v", slices.Sorted(maps.Keys(got)))
	}
	mustRun(t, "verify", dir)
	again := objects[jsonRepaired](t, mustRun(t, "repair", dir, "--json"))
	if again[0].Changed || again[0].Damage != 0 {
		t.Errorf("a second repair: %+v", again)
	}
}

// TestRepairOlder promises that a key whose newest version is damaged is said
// to have an older one.
func TestRepairOlder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	older := strings.Repeat("old", 9000)
	mustPut(t, dir, "large", strings.Repeat("x", 90000))
	mustPut(t, dir, "key", older)
	mustPut(t, dir, "key", "the newest version")
	spoil(t, fileWith(t, dir, "the newest"), flip("the newest"))
	out := objects[map[string]any](t, mustRun(t, "repair", dir, "--json"))
	i := slices.IndexFunc(out, func(x map[string]any) bool { return x["event"] == "older" })
	if i < 0 || out[i]["key"] != "key" {
		t.Errorf("repair: %v", out)
	}
	if got := mustRun(t, "get", dir, "key"); got != older {
		t.Errorf("%.20q", got)
	}
}

// TestRepairBadInput promises what becomes of directories that are no store, no
// whole one or not one alone.
func TestRepairBadInput(t *testing.T) {
	garbage := strings.Repeat("no such thing as a header ", 400)
	for name, test := range map[string]struct {
		spoil  func(t *testing.T, dir string)
		verify string // on stdout or stderr
		repair string // if refused, on stderr
	}{
		"random bytes for all": {
			spoil: func(t *testing.T, dir string) {
				for _, file := range storeFiles(t, dir, "*[0-9a-f.seg]") {
					if filepath.Base(file) != "LOCK" {
						spoil(t, file, func([]byte) []byte { return []byte(garbage) })
					}
				}
			},
			verify: "file header checksum", repair: "neither a manifest nor the header",
		},
		"random bytes for a manifest": {
			spoil: func(t *testing.T, dir string) {
				list := storeFiles(t, dir, "MANIFEST-*")
				spoil(t, list[len(list)-1], func([]byte) []byte { return []byte(garbage) })
			},
			verify: "file header checksum",
		},
		"random bytes for a segment": {
			spoil: func(t *testing.T, dir string) {
				spoil(t, fileWith(t, dir, "value 9"), func([]byte) []byte { return []byte(garbage) })
			},
			verify: "file header checksum",
		},
		"newer manifest": {
			spoil: func(t *testing.T, dir string) {
				for _, file := range storeFiles(t, dir, "MANIFEST-*") {
					spoil(t, file, newer)
				}
			},
			verify: "newer version", repair: "newer version",
		},
		"newer segment": {
			spoil:  func(t *testing.T, dir string) { spoil(t, fileWith(t, dir, "value 9"), newer) },
			verify: "newer version", repair: "newer version",
		},
		"no store": {
			spoil: func(t *testing.T, dir string) {
				for _, file := range storeFiles(t, dir, "*") {
					os.Remove(file)
				}
				files{"holiday.jpg": "a picture", "sub/LOCK": ""}.write(t, dir)
			},
			verify: "there is no store", repair: "there is no store",
		},
		"half copied": {
			spoil: func(t *testing.T, dir string) {
				os.Remove(fileWith(t, dir, "value 9"))
				for _, file := range storeFiles(t, dir, "MANIFEST-*") {
					os.Remove(file)
				}
				os.Remove(filepath.Join(dir, "LOCK"))
			},
			verify: "no manifest",
		},
		"files of another store": {
			spoil: func(t *testing.T, dir string) {
				other := filepath.Join(t.TempDir(), "other")
				mustPut(t, other, "foreign", "value")
				files{"00000000000000ff.seg": mustRead(t, storeFiles(t, other, "*.seg")[0])}.write(t, dir)
			},
			verify: "file of another store",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			want := fill(t, dir)
			test.spoil(t, dir)
			before, left := state(t, dir), valuesIn(t, dir, want)
			if r := crowfly("verify", dir); r.code != exitError || !strings.Contains(r.out+r.err, test.verify) {
				t.Errorf("verify: exit code %d: %s%s", r.code, r.out, r.err)
			}
			r := crowfly("repair", dir)
			if test.repair != "" {
				if r.code != exitError || !strings.Contains(r.err, test.repair) || !slices.Equal(before, state(t, dir)) {
					t.Errorf("repair: exit code %d: %s%s", r.code, r.out, r.err)
				}
				return
			}
			if r.code != exitOK {
				t.Fatalf("repair: exit code %d: %s", r.code, r.err)
			}
			mustRun(t, "verify", dir)
			if got := values(t, dir); !maps.Equal(got, left) {
				t.Errorf("%d values are left, should be %d", len(got), len(left))
			}
		})
	}
}

// valuesIn are the values that still lie in some segment.
func valuesIn(t *testing.T, dir string, all files) files {
	t.Helper()
	left := make(files)
	list, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	for _, file := range list {
		content := mustRead(t, file)
		for key, value := range all {
			if strings.Contains(content, value) {
				left[key] = value
			}
		}
	}
	return left
}

// newer gives a file, and both images of a manifest, a header that asks for a
// newer version.
func newer(b []byte) []byte {
	for _, from := range []int{0, len(b) / 2} {
		if from > 0 && string(b[from:from+4]) != string(b[:4]) {
			continue
		}
		head := b[from : from+64]
		binary.LittleEndian.PutUint16(head[6:], 2)
		binary.LittleEndian.PutUint64(head[56:], xxhash.Sum64(head[:56]))
	}
	return b
}
