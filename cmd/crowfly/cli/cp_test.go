package cli

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// describedStore has values of all kinds with all there is to know about them.
func describedStore(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	store, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	meta := &db.Metadata{
		ModTime:            time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC),
		ContentType:        "text/css",
		CacheControl:       "no-cache",
		ContentEncoding:    "br",
		ContentDisposition: "inline",
		Checksums:          []db.Pair{{Name: "md5", Value: "\x00\xff"}},
		User:               []db.Pair{{Name: "B", Value: "1"}, {Name: "A", Value: "2"}, {Name: "A", Value: "\xff"}},
	}
	for key, n := range map[string]int{
		"described": 10, "dir/a": 0, "dir/b": 1 << 20, "dir/batch": batchBytes - 100, "dir/record": 12 << 20, "dir/blob": 17 << 20,
	} {
		if err := store.Put([]byte(key), random(n), &db.PutOptions{Metadata: meta}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// listing is what ls says about all keys, but for the version, which no copy
// shares.
func listing(t *testing.T, dir, prefix string) []jsonValue {
	t.Helper()
	list := objects[jsonValue](t, mustRun(t, "ls", dir, prefix, "--json"))
	for i := range list {
		list[i].Version = ""
	}
	return list
}

func TestCp(t *testing.T) {
	source, tmp := describedStore(t), t.TempDir()
	for name, test := range map[string]struct {
		args   []string
		prefix string // of the keys that are copied
	}{
		"all":    {nil, ""},
		"prefix": {[]string{"--prefix", "dir/"}, "dir/"},
		"keys":   {[]string{"dir/blob", "dir/batch", "dir/b"}, "dir/b"},
	} {
		target := filepath.Join(tmp, name)
		r := crowfly(append([]string{"cp", source, target, "--json", "-v"}, test.args...)...)
		want, got := listing(t, source, test.prefix), listing(t, target, "")
		if r.code != exitOK || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: exit code %d\n%+v\n%+v\n%s", name, r.code, got, want, r.err)
		}
		for _, v := range want {
			if mustRun(t, "get", target, v.Key) != mustRun(t, "get", source, v.Key) {
				t.Errorf("%s: %s has another value", name, v.Key)
			}
		}
		list := events(t, r.out)
		if s := objects[jsonSummary](t, list.summary)[0]; len(list.of("copied")) != len(want) || s.Files != len(want) || s.Failed != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		noStrays(t, target)
	}
}

func TestCpIfAbsent(t *testing.T) {
	source := describedStore(t)
	target := filepath.Join(t.TempDir(), "target")
	mustPut(t, target, "described", "mine")
	mustPut(t, target, "dir/blob", "mine")
	r := crowfly("cp", source, target, "--if-absent")
	if r.code != exitOK || !strings.Contains(r.err, "copied 4 values") || !strings.Contains(r.err, "2 skipped") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	for _, key := range []string{"described", "dir/blob"} {
		if got := mustRun(t, "get", target, key); got != "mine" {
			t.Errorf("%s has %d bytes", key, len(got))
		}
	}
	mustRun(t, "cp", source, target)
	if got := mustRun(t, "get", target, "dir/blob"); len(got) != 17<<20 {
		t.Errorf("%d bytes", len(got))
	}
}

// A key that is missing keeps no other from being copied.
func TestCpMissing(t *testing.T) {
	source := describedStore(t)
	target := filepath.Join(t.TempDir(), "target")
	r := crowfly("cp", source, target, "missing", "described")
	if r.code != exitNotFound || !strings.Contains(r.err, `failed "missing"`) {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if got := mustRun(t, "ls", target); got != "described\n" {
		t.Errorf("keys %q", got)
	}
}

func TestHead(t *testing.T) {
	source := describedStore(t)
	got := mustRun(t, "head", source, "described")
	h := objects[jsonHead](t, mustRun(t, "head", source, "described", "--json"))[0]
	want := `Content-Length: 10
ETag: "` + h.Version + `"
Content-Type: text/css
Content-Encoding: br
Content-Disposition: inline
Cache-Control: no-cache
Last-Modified: Sat, 03 Feb 2001 04:05:06 GMT
X-Meta-B: 1
X-Meta-A: 2
X-Meta-A: ` + "\xff" + `
Checksum: md5 00ff
Extent: ` + h.Extents[0].File
	if !strings.HasPrefix(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	pairs := []jsonPair{{Name: "B", Value: "1"}, {Name: "A", Value: "2"}, {Name: "A", Base64: []byte("\xff")}}
	if !reflect.DeepEqual(h.User, pairs) || !reflect.DeepEqual(h.Checksums, []jsonPair{{Name: "md5", Value: "00ff"}}) {
		t.Errorf("%+v", h)
	}
	for _, key := range []string{"described", "dir/blob"} {
		x := objects[jsonHead](t, mustRun(t, "head", source, key, "--json"))[0].Extents[0]
		if mustRead(t, x.File)[x.Offset:][:x.Length] != mustRun(t, "get", source, key) {
			t.Errorf("%s does not lie there", key)
		}
	}
}
