package cli

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// greeting is the first line that a child says.
func (c *child) greeting(t *testing.T) string {
	t.Helper()
	line, err := c.err.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

var (
	servedAt  = regexp.MustCompile(`on (http://127\.0\.0\.1:[0-9]+)`)
	metricsAt = regexp.MustCompile(`metrics on (http://127\.0\.0\.1:[0-9]+)/-/metrics`)
)

// Figures are on a listener of their own, for two servers on one machine too, or
// with the values, or nowhere. Method: three servers at the same time, of which
// at most one has the usual address.
func TestServeMetrics(t *testing.T) {
	needSignals(t)
	seen := map[string]bool{}
	for _, flags := range [][]string{nil, nil, {"--metrics", "127.0.0.1:0"}} {
		args := append([]string{"serve", filepath.Join(t.TempDir(), "store"), "--listen", "127.0.0.1:0"}, flags...)
		c := start(t, args...)
		line := c.greeting(t)
		at := metricsAt.FindStringSubmatch(line)
		if at == nil || seen[at[1]] {
			t.Fatalf("%q: no address of its own", line)
		}
		seen[at[1]] = true
		if status, page := request(t, "GET", at[1]+"/-/metrics", ""); status != 200 || !strings.Contains(page, "\ncrowfly_ready 1\n") {
			t.Errorf("%d %s", status, page)
		}
		if status, _ := request(t, "GET", at[1]+"/-/readyz", ""); status != 200 {
			t.Errorf("readyz: %d", status)
		}
		if status, _ := request(t, "GET", servedAt.FindStringSubmatch(line)[1]+"/-/metrics", ""); status != 404 {
			t.Errorf("with the values: %d", status)
		}
		t.Cleanup(func() {
			c.Process.Signal(syscall.SIGTERM)
			if code, talk := c.exit(t); code != exitOK {
				t.Errorf("exit code %d: %s", code, talk)
			}
		})
	}
}

func TestServeMetricsElsewhere(t *testing.T) {
	needSignals(t)
	for _, test := range []struct {
		flag   string
		status int
	}{{"same", http.StatusOK}, {"off", http.StatusNotFound}} {
		c := start(t, "serve", filepath.Join(t.TempDir(), "store"), "--listen", "127.0.0.1:0", "--metrics", test.flag)
		line := c.greeting(t)
		url := servedAt.FindStringSubmatch(line)[1]
		if status, _ := request(t, "GET", url+"/-/metrics", ""); status != test.status {
			t.Errorf("%s: %d, want %d", test.flag, status, test.status)
		}
		if at := metricsAt.FindStringSubmatch(line); (at != nil) != (test.status == http.StatusOK) || at != nil && at[1] != url {
			t.Errorf("%s: %q", test.flag, line)
		}
	}
}

// Figures are for this machine only, also if there are tokens, and that is said
// before the server says that it serves.
func TestServeMetricsStayHere(t *testing.T) {
	r := crowfly("serve", filepath.Join(t.TempDir(), "store"), "--listen", "127.0.0.1:0", "--token-file", tokenFile(t), "--metrics", "0.0.0.0:0")
	const want = "metrics: listen on 0.0.0.0:0: not a loopback address: figures are for this machine only, also with tokens"
	if r.code != exitError || !strings.Contains(r.err, want) || strings.Contains(r.err, "serving") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

// With the values they are at an address that begins as that of the values.
func TestServeMetricsEncrypted(t *testing.T) {
	needSignals(t)
	tmp := t.TempDir()
	cert, key := filepath.Join(tmp, "cert.pem"), filepath.Join(tmp, "key.pem")
	writePair(t, cert, key, 1)
	for flag, scheme := range map[string]string{metricsSame: "https", "127.0.0.1:0": "http"} {
		c := start(t, "serve", filepath.Join(tmp, flag), "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--metrics", flag)
		line := c.greeting(t)
		at := regexp.MustCompile(`metrics on (` + scheme + `://[0-9.:]+/-/metrics)`).FindStringSubmatch(line)
		if at == nil {
			t.Fatalf("%s: %q", flag, line)
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		resp, err := (&http.Client{Transport: transport}).Get(at[1])
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != 200 {
			t.Errorf("%s: %s", at[1], resp.Status)
		}
		transport.CloseIdleConnections()
	}
}
