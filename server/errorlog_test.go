package server

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// clientFaults are beginnings of the lines of net/http about what a client has
// done: a server that wrote them down could be made to fill a disk.
var clientFaults = []string{
	"http: TLS handshake error", "http: URL query contains semicolon", "timeout waiting for", "http2: received GOAWAY",
	"http2: server connection error", "http2: server closing client connection", "http2: server: error reading preface",
	"protocol error: received", "Transport: unhandled", "http2: Transport received", // of a client only
}

// TestErrorLog: all that a server of net/http can write to its log is known, and
// what a client has brought about does not get there. Method: the lines are taken
// from the source of net/http.
func TestErrorLog(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server.go", "h2_bundle.go"} {
		source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src/net/http", name))
		if err != nil {
			t.Fatal(err)
		}
		lines := logLines.FindAllSubmatch(source, -1)
		if len(lines) < 8 {
			t.Errorf("%s: %d lines, too few", name, len(lines))
		}
		for _, line := range lines {
			text := string(line[1])
			own, client := beginsWithOne(text, ownFaults), beginsWithOne(text, clientFaults)
			if own == client {
				t.Errorf("%s: whose fault is %q? %v, %v", name, text, own, client)
			}
			var log bytes.Buffer
			errorLog(slog.NewTextHandler(&log, nil)).Print(text)
			if told := strings.Contains(log.String(), "level=ERROR"); told != own {
				t.Errorf("%s: %q told: %v", name, text, told)
			}
		}
	}
}

var logLines = regexp.MustCompile(`\.(?:logf|condlogf)\((?:err, )?"([^"]+)"`)

func beginsWithOne(text string, beginnings []string) bool {
	for _, b := range beginnings {
		if strings.HasPrefix(text, b) {
			return true
		}
	}
	return false
}
