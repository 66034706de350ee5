package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/crowfly/crowfly/server"
)

// A store that a server has open is compacted and described by its address, and
// whoever names the directory instead is told so.
func TestServeCompact(t *testing.T) {
	needSignals(t)
	dir := filepath.Join(t.TempDir(), "store")
	c, url, _ := serve(t, dir)
	for i := range 4 {
		if status, body := request(t, "PUT", url+"/key", strings.Repeat(fmt.Sprint(i), 1<<20)); status >= 300 {
			t.Fatalf("PUT: %d %s", status, body)
		}
	}
	before := objects[server.StoreStats](t, mustRun(t, "stat", url, "--json"))[0]
	if before.Keys != 1 || before.Reclaimable < 3<<20 || before.Compaction == nil || before.Process == nil || before.Process.Maps == 0 {
		t.Errorf("%+v", before)
	}
	r := crowfly("compact", dir)
	if r.code != exitError || !strings.Contains(r.err, dir+" is locked by another writer"+c.named()+"; ") || !strings.Contains(r.err, "crowfly compact http://") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}

	r = crowfly("compact", url+"/", "--json")
	if r.code != exitOK || !strings.Contains(r.err, "before") {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	done := objects[server.Compacted](t, r.out)[0]
	if done.Before < 4<<20 || done.After > 2<<20 || done.Live < 1<<20 || done.Read < 4<<20 || done.Copied < 1<<20 {
		t.Errorf("%+v", done)
	}
	after := objects[server.StoreStats](t, mustRun(t, "stat", url, "--json"))[0]
	if after.Total > 2<<20 || after.Reclaimable > 1<<20 || after.Compaction.Freed < 3<<20 {
		t.Errorf("%+v", after)
	}
	if _, got := request(t, "GET", url+"/key", ""); got != strings.Repeat("3", 1<<20) {
		t.Errorf("%d other bytes", len(got))
	}
}

// What a server alone knows is in its table and not in that of a directory. What
// is damaged is named.
func TestStatRows(t *testing.T) {
	var out strings.Builder
	answer := `{"segments":[],"keys":7,"reclaimable_bytes":2048,"stuck_tombstone_bytes":96,"hints":3,"hints_missing":1,
		"compaction":{"space_target":1.3,"rate":-1,"backlog_bytes":1024,"segments":5,"bytes_read":4096,"suspects":["7.seg"]},
		"process":{"values":2,"snapshots":1,"leaked":1,"oldest":{"kind":"value","key_base64":"/w==","owner":"main.f x.go:1","age_seconds":1.5},
		"retired_segments":4,"retired_bytes":3072,"moved_bytes":5120,"maps":6,"maps_retired":8,"maps_limit":9}}`
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) }))
	defer other.Close()
	if code := run([]string{"stat", other.URL}, nil, &out, io.Discard); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	dir := filepath.Join(t.TempDir(), "store")
	mustPut(t, dir, "key", "value")
	local := mustRun(t, "stat", dir)
	for line, everywhere := range map[string]bool{
		"keys          7\n":          false,
		"reclaimable   2.0 KiB, ":    false,
		"tombstones    96 B have ":   false,
		"hints         3, 1 missi":   false,
		"space target  1.30 times":   false,
		"rate          without li":   false,
		"compacted     5 segments":   false,
		"suspect       7.seg: dam":   false,
		"handles       2 values, ":   false,
		"oldest        value \xff, ": false,
		" made 1.5s ago by main.f ":  false,
		"retired       3.0 KiB on":   false,
		"moved         5.0 KiB of":   false,
		"maps          6, and 8 h":   false,
		"\nreclaimable   ":           true,
		"\nhints         ":           true,
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing in %s", line, out.String())
		}
		if strings.Contains(local, line) != everywhere {
			t.Errorf("%q for a directory is %v, in %s", line, !everywhere, local)
		}
	}
	for _, name := range []string{"handles", "retired", "moved", "maps", "oldest", "rate", "tombstones"} {
		if strings.Contains(local, "\n"+name) {
			t.Errorf("%s for a directory: %s", name, local)
		}
	}
}

// Answers that are not as they should be are errors that name the server.
func TestOtherServer(t *testing.T) {
	for answer, talk := range map[string]string{
		"":                              "unexpected EOF",
		`{"done":1,"total":2}`:          "unexpected EOF",
		`{"done":1}` + "\n" + `{"bytes`: "unexpected EOF",
		"<html>":                        "invalid character",
		`{"error":"no space left"}`:     "no space left",
	} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) }))
		r := crowfly("compact", other.URL)
		if r.code != exitError || !strings.Contains(r.err, other.URL+": ") || !strings.Contains(r.err, talk) {
			t.Errorf("%q: exit code %d: %s", answer, r.code, r.err)
		}
		other.Close()
	}
	for _, command := range []string{"compact", "stat"} {
		other := httptest.NewServer(http.NotFoundHandler())
		r := crowfly(command, other.URL)
		if r.code != exitError || !strings.Contains(r.err, other.URL+": 404 Not Found") {
			t.Errorf("%s: exit code %d: %s", command, r.code, r.err)
		}
		other.Close()
		if r := crowfly(command, other.URL); r.code != exitError || !strings.Contains(r.err, other.URL) {
			t.Errorf("%s without a server: exit code %d: %s", command, r.code, r.err)
		}
	}
}

// A token is shown to nobody but the server that was named. Method: a redirection to
// another port of the same host, for which net/http would keep it.
func TestRedirected(t *testing.T) {
	t.Setenv(tokenEnv, rwToken)
	var asked atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		other := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		for _, command := range []string{"compact", "stat"} {
			r := crowfly(command, other.URL)
			if r.code != exitError || !strings.Contains(r.err, fmt.Sprintf("%s: %d ", other.URL, status)) {
				t.Errorf("%s, %d: exit code %d: %s", command, status, r.code, r.err)
			}
		}
		other.Close()
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// A signal to the client ends the request, and so the compaction.
func TestCompactInterrupted(t *testing.T) {
	needSignals(t)
	asked, ended := make(chan struct{}), make(chan struct{})
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"done":1,"total":2,"written":1}`+"\n")
		w.(http.Flusher).Flush()
		close(asked)
		<-r.Context().Done()
		close(ended)
	}))
	defer other.Close()
	c := start(t, "compact", other.URL)
	<-asked
	c.Process.Signal(os.Interrupt)
	if code, talk := c.exit(t); code != exitInterrupted || !strings.Contains(talk, "interrupted") {
		t.Errorf("exit code %d: %s", code, talk)
	}
	<-ended
}
