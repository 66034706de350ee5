package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// scrape asks a handler for its page.
func scrape(t *testing.T, h *Handler) map[string]float64 {
	t.Helper()
	w := httptest.NewRecorder()
	h.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/anything", nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	return parseExposition(t, w.Body.String())
}

// wantSamples compares some lines of a page.
func wantSamples(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for _, line := range slices.Sorted(maps.Keys(want)) {
		if n, ok := got["crowfly_"+line]; !ok || n != want[line] {
			t.Errorf("%s: %v (there: %v), want %v", line, n, ok, want[line])
		}
	}
}

// TestMetricsCount: requests are counted by what came of them, with their time,
// and bytes by their way, on the fast path and by net/http. Method: the same
// known requests to both.
func TestMetricsCount(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprintf("slow=%v", slow), func(t *testing.T) {
			store := openStore(t)
			put(t, store, "k", noise(1000, 1), nil)
			put(t, store, "large", noise(5<<20, 1), nil)
			s, addr := start(t, store, nil, func(s *Server) { s.slow = slow })
			c := dial(t, addr)
			c.do("GET", "/k", "")
			c.do("GET", "/k", "", "If-None-Match: *")
			c.do("GET", "/large", "", "Range: bytes=0-99999")
			c.do("GET", "/none", "")
			c.do("HEAD", "/k", "")
			c.do("PUT", "/k", "w")
			c.do("PUT", "/k", "w", "If-Match: \"x\"")
			eventually(t, "all requests are counted", func() bool { return s.Stats().Put.ClientError == 1 })
			got := scrape(t, s.handler)
			mapped, sendfile := 1000.0, 100_000.0
			if runtime.GOOS != "linux" {
				mapped, sendfile = mapped+sendfile, 0
			}
			fast, nethttp := 1.0, 0.0
			if slow {
				fast, nethttp = 0, 1
			}
			wantSamples(t, got, map[string]float64{
				`requests_total{method="GET",class="2xx"}`:              2,
				`requests_total{method="GET",class="3xx"}`:              1,
				`requests_total{method="GET",class="4xx"}`:              1,
				`requests_total{method="GET",class="5xx"}`:              0,
				`requests_total{method="HEAD",class="2xx"}`:             1,
				`requests_total{method="PUT",class="2xx"}`:              1,
				`requests_total{method="PUT",class="4xx"}`:              1,
				`requests_total{method="DELETE",class="2xx"}`:           0,
				`requests_total{method="other",class="4xx"}`:            0,
				`request_duration_seconds_count{method="GET"}`:          4,
				`request_duration_seconds_count{method="HEAD"}`:         1,
				`request_duration_seconds_count{method="PUT"}`:          2,
				`request_duration_seconds_count{method="DELETE"}`:       0,
				`request_duration_seconds_sum{method="DELETE"}`:         0,
				`sent_bytes_total{path="mapped"}`:                       mapped,
				`sent_bytes_total{path="sendfile"}`:                     sendfile,
				`sent_bytes_total{path="copied"}`:                       0,
				`copied_bytes_total{reason="tls"}`:                      0,
				`fast_requests_total`:                                   7 * fast,
				`handed_over_connections_total`:                         0,
				`open_connections{path="fast"}`:                         fast,
				`open_connections{path="nethttp"}`:                      nethttp,
				`aborted_bodies_total`:                                  0,
				`ready`:                                                 1,
				`store_keys`:                                            2,
				`store_records_total`:                                   3,
				`request_duration_seconds_bucket{method="PUT",le="60"}`: 2,
			})
			if sum := got[`crowfly_request_duration_seconds_sum{method="GET"}`]; sum <= 0 || sum > 60 {
				t.Errorf("4 requests took %v seconds", sum)
			}
		})
	}
}

// TestLatencyIsOfTheAnswer: the time of a request is neither that which its head
// took to come, nor that between two of them.
func TestLatencyIsOfTheAnswer(t *testing.T) {
	const pause = 100 * time.Millisecond
	for _, slow := range []bool{false, true} {
		store := openStore(t)
		put(t, store, "k", []byte("v"), nil)
		s, addr := start(t, store, nil, func(s *Server) { s.slow = slow })
		c := dial(t, addr)
		began := time.Now()
		for range 3 {
			c.send("GET /k HTTP/1.1\r\n")
			time.Sleep(pause)
			c.send("Host: localhost\r\n\r\n")
			c.receive("GET").wantStatus(t, 200)
		}
		took := time.Since(began)
		eventually(t, "all are counted", func() bool { return s.Stats().Get.Success == 3 })
		sum := time.Duration(s.handler.stats.latency[methodIndex("GET")].sum.Load())
		if sum <= 0 || sum > took-3*pause {
			t.Errorf("slow %v: %v for the answers in %v, of which %v were pauses", slow, sum, took, 3*pause)
		}
	}
}

// The figures of the store are those of db.Stats and of /-/stats, those of the
// process those of the system.
func TestMetricsOfStore(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{SegmentSize: 128 << 10, BlobSize: 64 << 10})
	waste(t, store, 40)
	put(t, store, "large", noise(100<<10, 1), nil)
	if err := store.Compact(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	put(t, store, "0", []byte("v"), nil)
	v, err := store.Value([]byte("large"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var s db.Stats
	var got map[string]float64
	h := NewHandler(store, nil)
	eventually(t, "the store is as it was before", func() bool { // a watermark may be written
		s = store.Stats()
		got = scrape(t, h)
		return store.Stats().DeadBytes == s.DeadBytes
	})
	d := NewStoreStats(s)
	wantSamples(t, got, map[string]float64{
		"store_keys":                       21,
		"store_live_bytes":                 float64(d.Live),
		"store_dead_bytes":                 float64(d.Dead),
		"store_file_bytes":                 float64(d.Total),
		"store_reclaimable_bytes":          float64(d.Reclaimable),
		"store_segments":                   float64(len(s.Segments)),
		"store_blobs":                      1,
		"store_blob_bytes":                 float64(s.BlobBytes),
		"store_index_bytes":                float64(s.IndexBytes),
		"store_commits_total":              42,
		`store_open_handles{kind="value"}`: 1,
		"store_leaked_handles":             0,
		"compactions_total":                float64(s.Compaction.Compactions),
		"compaction_written_bytes_total":   float64(s.Compaction.BytesWritten),
		"compaction_suspect_segments":      0,
	})
	for line, least := range map[string]float64{
		"crowfly_store_dead_bytes":                                 16 << 10,
		"crowfly_store_index_bytes":                                8 * 21,
		"crowfly_store_oldest_handle_seconds":                      1e-9,
		"crowfly_compaction_read_bytes_total":                      16 << 10,
		`crowfly_process_cpu_seconds_total{mode="user"}`:           1e-6,
		`crowfly_process_page_faults_total{kind="minor"}`:          1,
		`crowfly_process_context_switches_total{kind="voluntary"}`: 1,
		`crowfly_process_mappings{state="live"}`:                   float64(len(s.Segments)),
	} {
		if runtime.GOOS == "windows" && strings.Contains(line, "_process_") {
			continue
		}
		if n, ok := got[line]; !ok || n < least {
			t.Errorf("%s: %v (there: %v), want %v at least", line, n, ok, least)
		}
	}
}

// Of a closed store there is what it has done, and that it is not ready.
func TestMetricsOfClosedStore(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	store.Close()
	got := scrape(t, NewHandler(store, &Options{Log: quiet()}))
	wantSamples(t, got, map[string]float64{"ready": 0, "store_commits_total": 1})
	if _, there := got["crowfly_store_keys"]; there {
		t.Error("a closed store has keys")
	}
}

// TestMetricsAreAskedFor: on the port of the store they are only if that was
// wanted.
func TestMetricsAreAskedFor(t *testing.T) {
	store := openStore(t)
	_, addr := start(t, store, nil)
	dial(t, addr).do("GET", "/-/metrics", "").wantStatus(t, 404)
	_, addr = start(t, store, &Options{Metrics: true})
	c := dial(t, addr)
	got := c.do("GET", "/-/metrics", "")
	got.wantStatus(t, 200)
	parseExposition(t, string(got.body))
	c.do("HEAD", "/-/metrics", "").wantStatus(t, 200)
	c.do("POST", "/-/metrics", "").wantStatus(t, 405)
	c.send("GET /-/metrics HTTP/1.1\r\nHost: example.com\r\n\r\n")
	c.receive("GET").wantStatus(t, 421)
}

// startMetrics serves them on a listener of their own.
func startMetrics(t *testing.T, s *Server) (addr string, ended <-chan error) {
	t.Helper()
	l, err := ListenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeMetrics(l) }()
	return l.Addr().String(), done
}

// TestServeMetrics: what is for those who run a server has its own listener, on
// which there are no values, for this machine only.
func TestServeMetrics(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	s, _ := start(t, store, nil)
	addr, _ := startMetrics(t, s)
	c := dial(t, addr)
	for target, status := range map[string]int{
		"/-/metrics": 200, "/-/healthz": 200, "/-/readyz": 200, "/k": 404, "/": 404, "/-/stats": 404, "/-/metrics/": 404,
		"/%2D/healthz": 404, "/%2D/metrics": 404,
	} {
		if got := c.do("GET", target, ""); got.StatusCode != status {
			t.Errorf("%s: %s, want %d", target, got.Status, status)
		}
	}
	for _, target := range []string{"/-/metrics", "/-/readyz"} {
		c.send("GET " + target + " HTTP/1.1\r\nHost: example.com\r\n\r\n")
		c.receive("GET").wantStatus(t, 421)
	}

	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeMetrics(l); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("on all addresses: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
	if l, err := ListenMetrics(":0"); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("on all addresses: %v, %v", l, err)
	}
}

// TestMetricsOutliveRequests: while Shutdown waits one can see that, and what for.
func TestMetricsOutliveRequests(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	s, addr, end := serveOn(t, store)
	metrics, ended := startMetrics(t, s)
	c := dial(t, addr)
	c.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := c.in.Peek(1); err != nil { // it has begun
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- end(context.Background()) }()
	eventually(t, "the server stops", s.fast.stopping.Load)
	probe := dial(t, metrics)
	if got := probe.do("GET", "/-/readyz", ""); got.StatusCode != 503 || string(got.body) != "the server is shutting down\n" {
		t.Errorf("%s %s", got.Status, got.body)
	}
	wantSamples(t, parseExposition(t, string(probe.do("GET", "/-/metrics", "").body)), map[string]float64{
		"ready": 0, `open_connections{path="fast"}`: 1,
	})
	select {
	case err := <-done:
		t.Fatalf("shutdown did not wait: %v", err)
	default:
	}
	if got := c.receive("GET"); len(got.body) != 32<<20 {
		t.Errorf("got %d bytes", len(got.body))
	}
	if err := errors.Join(<-done, <-ended); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, probe.in); err != nil {
		t.Errorf("the connection for metrics does not end: %v", err)
	}
}

// TestOpenConnections: they are counted where they are, and no more when closed.
func TestOpenConnections(t *testing.T) {
	store := openStore(t)
	s, addr := start(t, store, nil)
	open := func(fast, slow int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d and %d connections", fast, slow), func() bool {
			f, n := s.connections()
			return f == fast && n == slow
		})
	}
	open(0, 0)
	a, b, c := dial(t, addr), dial(t, addr), dial(t, addr)
	open(3, 0)
	b.do("GET", "/", "")
	c.do("DELETE", "/k", "")
	open(1, 2)
	b.Close()
	open(1, 1)
	a.Close()
	c.do("GET", "/k", "", "Connection: close")
	open(0, 0)
}

// TestMetricsOfHandler: in a server that is not ours nobody knows of connections,
// and whose names are good is known there.
func TestMetricsOfHandler(t *testing.T) {
	h := NewHandler(openStore(t), nil)
	if got := scrape(t, h); len(got) < 100 {
		t.Errorf("%d samples", len(got))
	} else if _, there := got[`crowfly_open_connections{path="fast"}`]; there {
		t.Error("connections are counted")
	}
	w := httptest.NewRecorder()
	h.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "http://example.com/metrics", nil))
	if w.Code != 405 {
		t.Errorf("PUT: %d", w.Code)
	}
}
