package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// exampleTime is a modification time with a part of a second, as a PUT has it.
var exampleTime = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

const (
	exampleDate = "Fri, 02 Jan 2026 03:04:05 GMT"
	dayBefore   = "Thu, 01 Jan 2026 03:04:05 GMT"
)

// statusCases are answered by a store that has the values of exampleStore.
// ETAG in a header stands for the entity tag of k. A wanted header of "-" must
// be absent.
var statusCases = []struct {
	name, method, target, body string
	header                     []string
	status                     int
	want                       map[string]string
}{
	{"get", "GET", "/k", "", nil, 200, map[string]string{
		"Content-Length": "5", "Accept-Ranges": "bytes", "Etag": "ETAG", "Last-Modified": exampleDate,
		"Content-Type": "text/x", "Cache-Control": "no-cache", "Content-Encoding": "x-y",
		"Content-Disposition": "inline", "X-Content-Type-Options": "nosniff", "Content-Range": "-"}},
	{"get without metadata", "GET", "/bare", "", nil, 200, map[string]string{
		"Content-Type": "application/octet-stream", "Last-Modified": "-", "Cache-Control": "-"}},
	{"get with metadata no header can have", "GET", "/odd", "", nil, 200, map[string]string{
		"Content-Type": "application/octet-stream", "X-Evil": "-", "Content-Disposition": "-"}},
	{"get empty", "GET", "/empty", "", nil, 200, map[string]string{"Content-Length": "0"}},
	{"get empty range", "GET", "/empty", "", []string{"Range: bytes=0-"}, 200, map[string]string{"Content-Length": "0"}},
	{"head", "HEAD", "/k", "", nil, 200, map[string]string{"Content-Length": "5", "Etag": "ETAG", "Content-Type": "text/x"}},
	{"head range", "HEAD", "/k", "", []string{"Range: bytes=1-2"}, 200, map[string]string{"Content-Length": "5", "Content-Range": "-"}},
	{"query of a key is nothing", "GET", "/k?x=%zz", "", nil, 200, nil},
	{"range", "GET", "/k", "", []string{"Range: bytes=1-2"}, 206, map[string]string{
		"Content-Length": "2", "Content-Range": "bytes 1-2/5", "Etag": "ETAG", "Last-Modified": exampleDate}},
	{"range unsatisfiable", "GET", "/k", "", []string{"Range: bytes=5-"}, 416, map[string]string{
		"Content-Range": "bytes */5", "Content-Type": "application/problem+json", "Etag": "-"}},
	{"not modified", "GET", "/k", "", []string{"If-None-Match: W/ETAG"}, 304, map[string]string{
		"Etag": "ETAG", "Content-Length": "-", "Content-Type": "-", "Cache-Control": "no-cache"}},
	{"not modified since", "HEAD", "/k", "", []string{"If-Modified-Since: " + exampleDate}, 304, nil},
	{"if-match fails", "GET", "/k", "", []string{`If-Match: "x"`}, 412, map[string]string{"Content-Type": "application/problem+json"}},
	{"if-range fails", "GET", "/k", "", []string{"Range: bytes=1-2", `If-Range: "x"`}, 200, nil},
	{"absent", "GET", "/none", "", nil, 404, map[string]string{"Content-Type": "application/problem+json"}},
	{"absent beats condition", "GET", "/none", "", []string{"If-Match: *"}, 404, nil},
	{"head absent", "HEAD", "/none", "", nil, 404, nil},
	{"reserved", "GET", "/-/health", "", nil, 404, nil},
	{"reserved put", "PUT", "/-/x", "v", nil, 404, nil},
	{"stats", "GET", "/-/stats", "", nil, 200, map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}},
	{"stats head", "HEAD", "/-/stats", "", nil, 200, map[string]string{"Content-Type": "application/json"}},
	{"stats options", "OPTIONS", "/-/stats", "", nil, 204, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
	{"stats post", "POST", "/-/stats", "", nil, 405, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
	{"below stats", "GET", "/-/stats/", "", nil, 404, nil},
	{"stats in other letters", "GET", "/-/st%61ts", "", nil, 404, nil},
	{"health", "GET", "/-/healthz", "", nil, 200, map[string]string{"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "Content-Length": "3"}},
	{"health head", "HEAD", "/-/healthz", "", nil, 200, map[string]string{"Content-Type": "text/plain; charset=utf-8", "Content-Length": "3"}},
	{"health options", "OPTIONS", "/-/healthz", "", nil, 204, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
	{"health post", "POST", "/-/healthz", "", nil, 405, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
	{"below health", "GET", "/-/healthz/", "", nil, 404, nil},
	{"ready", "GET", "/-/readyz", "", nil, 200, map[string]string{"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}},
	{"ready head", "HEAD", "/-/readyz", "", nil, 200, nil},
	{"ready put", "PUT", "/-/readyz", "x", nil, 405, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
	{"compact", "POST", "/-/compact", "", nil, 200, map[string]string{"Content-Type": "application/x-ndjson"}},
	{"compact with a body", "POST", "/-/compact", "now", nil, 200, nil},
	{"compact from a page of the server", "POST", "/-/compact", "", []string{"Sec-Fetch-Site: same-origin"}, 200, nil},
	{"compact from another site", "POST", "/-/compact", "", []string{"Sec-Fetch-Site: cross-site"}, 403, nil},
	{"compact from another port", "POST", "/-/compact", "", []string{"Sec-Fetch-Site: same-site"}, 403, nil},
	{"compact from another origin", "POST", "/-/compact", "", []string{"Origin: http://example.com"}, 403, nil},
	{"compact from nowhere", "POST", "/-/compact", "", []string{"Origin: null"}, 403, nil},
	{"get compact", "GET", "/-/compact", "", nil, 405, map[string]string{"Allow": "POST, OPTIONS"}},
	{"compact options", "OPTIONS", "/-/compact", "", nil, 204, map[string]string{"Allow": "POST, OPTIONS"}},
	{"not a path", "GET", "*", "", nil, 400, nil},
	{"bad escape", "GET", "/%zz", "", nil, 400, nil},
	{"post", "POST", "/k", "x", nil, 405, map[string]string{"Allow": "GET, HEAD, PUT, DELETE, OPTIONS"}},
	{"put the root", "PUT", "/", "x", nil, 405, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
	{"options", "OPTIONS", "/k", "", nil, 204, map[string]string{"Allow": "GET, HEAD, PUT, DELETE, OPTIONS"}},
	{"options of the root", "OPTIONS", "/", "", nil, 204, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},

	{"put new", "PUT", "/new", "v", nil, 201, map[string]string{"Content-Length": "0"}},
	{"put empty", "PUT", "/new", "", nil, 201, nil},
	{"put over", "PUT", "/k", "v", nil, 204, nil},
	{"put too large", "PUT", "/k", strings.Repeat("x", 101), nil, 413, map[string]string{"Connection": "close", "Content-Type": "application/problem+json"}},
	{"put a range", "PUT", "/k", "v", []string{"Content-Range: bytes 0-0/5"}, 400, nil},
	{"put with odd metadata", "PUT", "/k", "v", []string{"Content-Type: \xff"}, 400, nil},
	{"put if absent, absent", "PUT", "/new", "v", []string{"If-None-Match: *"}, 201, nil},
	{"put if absent, present", "PUT", "/k", "v", []string{"If-None-Match: *"}, 412, nil},
	{"put if match", "PUT", "/k", "v", []string{`If-Match: "x", ETAG`}, 204, nil},
	{"put if match fails", "PUT", "/k", "v", []string{`If-Match: "x"`}, 412, nil},
	{"put if match, weak", "PUT", "/k", "v", []string{"If-Match: W/ETAG"}, 412, nil},
	{"put if match, absent", "PUT", "/new", "v", []string{"If-Match: *"}, 412, nil},
	{"put if unmodified", "PUT", "/k", "v", []string{"If-Unmodified-Since: " + exampleDate}, 204, nil},
	{"put if modified is nothing", "PUT", "/k", "v", []string{"If-Match: *", "If-Modified-Since: " + exampleDate}, 204, nil},
	{"put if unmodified fails", "PUT", "/k", "v", []string{"If-Unmodified-Since: " + dayBefore}, 412, nil},
	{"delete", "DELETE", "/k", "", nil, 204, map[string]string{"Content-Length": "-"}},
	{"delete absent", "DELETE", "/none", "", nil, 404, nil},
	{"delete absent beats condition", "DELETE", "/none", "", []string{"If-Match: *"}, 404, nil},
	{"delete if match", "DELETE", "/k", "", []string{"If-Match: ETAG"}, 204, nil},
	{"delete if match fails", "DELETE", "/k", "", []string{`If-Match: "x"`}, 412, nil},

	{"list", "GET", "/", "", nil, 200, map[string]string{"Content-Type": "application/json", "Vary": "Accept"}},
	{"list head", "HEAD", "/", "", nil, 200, map[string]string{"Content-Type": "application/json"}},
	{"list text", "GET", "/?limit=2", "", []string{"Accept: text/plain"}, 200, map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "Link": `<?limit=2&start=k>; rel="next"`}},
	{"list limit 0", "GET", "/?limit=0", "", nil, 400, nil},
	{"list limit 1001", "GET", "/?limit=1001", "", nil, 400, nil},
	{"list limit x", "GET", "/?limit=x", "", nil, 400, nil},
	{"list misspelt", "GET", "/?prefx=a", "", nil, 400, nil},
	{"list twice", "GET", "/?prefix=a&prefix=b", "", nil, 400, nil},
	{"list bad escape", "GET", "/?prefix=%zz", "", nil, 400, nil},
}

func exampleStore(t *testing.T) *db.DB {
	t.Helper()
	store := openStore(t)
	put(t, store, "k", []byte("hello"), &db.Metadata{
		ModTime: exampleTime, ContentType: "text/x", CacheControl: "no-cache",
		ContentEncoding: "x-y", ContentDisposition: "inline",
	})
	put(t, store, "bare", []byte("b"), nil)
	put(t, store, "empty", nil, nil)
	put(t, store, "odd", []byte("o"), &db.Metadata{ContentType: "a\r\nX-Evil: 1", ContentDisposition: "\xff"})
	return store
}

func TestStatus(t *testing.T) {
	for _, c := range statusCases {
		t.Run(c.name, func(t *testing.T) {
			store := exampleStore(t)
			_, addr := start(t, store, &Options{MaxBody: 100})
			tag := etagIn(t, store, "k")
			var header []string
			for _, line := range c.header {
				header = append(header, strings.ReplaceAll(line, "ETAG", tag))
			}

			got := dial(t, addr).do(c.method, c.target, c.body, header...)

			got.wantStatus(t, c.status)
			for name, want := range c.want {
				checkHeader(t, got, name, strings.ReplaceAll(want, "ETAG", tag))
			}
			if got.StatusCode >= 400 && c.method != "HEAD" && c.target != "/%zz" { // net/http's own
				checkProblem(t, got)
			}
			if c.method == "PUT" && got.StatusCode < 300 {
				checkHeader(t, got, "Etag", etagIn(t, store, c.target[1:]))
			}
		})
	}
}

func checkHeader(t *testing.T, got reply, name, want string) {
	t.Helper()
	value := got.Header.Get(name)
	if name == "Connection" && got.Close {
		value = "close" // which the client takes out of the header
	}
	if want == "-" {
		want = ""
	}
	if value != want {
		t.Errorf("%s: %q, want %q", name, value, want)
	}
}

func checkProblem(t *testing.T, got reply) {
	t.Helper()
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal(got.body, &p); err != nil {
		t.Fatalf("problem %q: %v", got.body, err)
	}
	if p.Status != got.StatusCode || p.Title != http.StatusText(p.Status) || p.Detail == "" {
		t.Errorf("problem %q", got.body)
	}
}

func TestPutStoresMetadata(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	c := dial(t, addr)
	before := time.Now().Truncate(time.Second)
	c.do("PUT", "/k", "v", "Content-Type: a/b", "Cache-Control: no-store",
		"Content-Encoding: gzip", "Content-Disposition: attachment").wantStatus(t, 201)

	got := c.do("GET", "/k", "")

	got.wantBody(t, []byte("v"))
	for name, want := range map[string]string{"Content-Type": "a/b", "Cache-Control": "no-store",
		"Content-Encoding": "gzip", "Content-Disposition": "attachment"} {
		checkHeader(t, got, name, want)
	}
	modified, err := http.ParseTime(got.Header.Get("Last-Modified"))
	if err != nil || modified.Before(before) || modified.After(time.Now()) {
		t.Errorf("Last-Modified %v, %v", modified, err)
	}
}

func TestReadOnlyStoreRefusesWrites(t *testing.T) {
	dir := t.TempDir()
	writer, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, writer, "k", []byte("v"), nil)
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	_, addr := start(t, openStoreIn(t, dir, &db.Options{ReadOnly: true}), nil)
	c := dial(t, addr)
	c.do("GET", "/k", "").wantStatus(t, 200)
	for _, condition := range []string{"Accept: */*", `If-Match: "x"`, "If-None-Match: *"} { // or none
		c.do("PUT", "/k", "x", condition).wantStatus(t, 403)
		c.do("DELETE", "/k", "", condition).wantStatus(t, 403)
	}
	c.do("POST", "/-/compact", "").wantStatus(t, 403)
}

func TestClosedStore(t *testing.T) {
	store := exampleStore(t)
	_, addr := start(t, store, &Options{Log: quiet()})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	c := dial(t, addr)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		c.do(method, "/k", "").wantStatus(t, 503)
	}
	c.do("GET", "/", "").wantStatus(t, 503)
	c.do("GET", "/-/stats", "").wantStatus(t, 503)
	c.do("POST", "/-/compact", "").wantStatus(t, 503)
}

func TestDamagedValue(t *testing.T) {
	dir := t.TempDir()
	store, err := db.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	value := noise(4000, 1)
	put(t, store, "k", value, nil)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, dir, value)

	_, addr := start(t, openStoreIn(t, dir, &db.Options{}), &Options{Log: quiet()})

	got := dial(t, addr).do("GET", "/k", "")
	got.wantStatus(t, 500)
	checkProblem(t, got)
	checkHeader(t, got, "Etag", "-")
	if strings.Contains(string(got.body), dir) {
		t.Errorf("the client is told a file name: %s", got.body)
	}
}

// fullDisk is a directory in which nothing can be written to a segment.
type fullDisk struct{ vfs.FS }

type fullFile struct{ vfs.File }

func (d fullDisk) Create(name string) (vfs.File, error) {
	f, err := d.FS.Create(name)
	if err == nil && strings.HasSuffix(name, ".seg") {
		f = fullFile{f}
	}
	return f, err
}

func (fullFile) WriteVec([][]byte, int64) (int, error) { return 0, syscall.ENOSPC }

func TestFullDisk(t *testing.T) {
	dir, err := vfs.OpenDir(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	store, err := db.Open("", &db.Options{FS: fullDisk{dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close() // fails as well, or not: nothing was acknowledged
	_, addr := start(t, store, &Options{Log: quiet()})
	c := dial(t, addr)
	c.do("PUT", "/k", "v").wantStatus(t, 507)
	c.do("GET", "/k", "").wantStatus(t, 404)
}
