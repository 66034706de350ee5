package cli

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const (
	roToken = "ro-6f1dTjJ1MuaYwq3h"
	rwToken = "rw-kVb09Qx2mDpRr7Zs"
)

// tokenFile makes a file of both tokens.
func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("# of a test\nro "+roToken+"\nrw "+rwToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// requestAs is request with a token, if any.
func requestAs(t *testing.T, token, method, url, body string) int {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// Tokens from a file and from the environment are asked for, by name also of the
// commands that talk to a server, and never shown.
func TestServeTokens(t *testing.T) {
	needSignals(t)
	for name, flags := range map[string][]string{"file": {"--token-file", tokenFile(t)}, "environment": nil} {
		t.Run(name, func(t *testing.T) {
			if flags == nil {
				t.Setenv(tokensEnv, "ro "+roToken+", rw "+rwToken)
			}
			c, url, _ := serve(t, filepath.Join(t.TempDir(), "store"), flags...)
			for _, q := range []struct {
				token, method string
				status        int
			}{
				{"", "GET", 401}, {"", "PUT", 401}, {roToken + "x", "GET", 401},
				{roToken, "PUT", 403}, {rwToken, "PUT", 201}, {roToken, "GET", 200}, {rwToken, "GET", 200},
			} {
				if status := requestAs(t, q.token, q.method, url+"/key", "value"); status != q.status {
					t.Errorf("%s with %q: %d, want %d", q.method, q.token, status, q.status)
				}
			}
			for token, want := range map[string]string{"": "a token is needed", roToken: "for reading only", rwToken: ""} {
				t.Setenv(tokenEnv, token)
				r := crowfly("compact", url)
				if (r.code == exitOK) != (want == "") || !strings.Contains(r.err, want) {
					t.Errorf("compact with %q: exit code %d: %s", token, r.code, r.err)
				}
			}
			c.Process.Signal(syscall.SIGTERM)
			if code, talk := c.exit(t); code != exitOK || strings.Contains(talk, roToken) || strings.Contains(talk, rwToken) {
				t.Errorf("exit code %d: %s", code, talk)
			}
		})
	}
}

// With tokens a server may be open to other machines, and what it proposes can
// be pasted.
func TestServeAnywhere(t *testing.T) {
	needSignals(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip(err)
	}
	_, _, hints := serve(t, filepath.Join(t.TempDir(), "store"), "--listen", "0.0.0.0:0", "--token-file", tokenFile(t))
	for _, hint := range hints {
		if strings.Contains(hint, rwToken) {
			t.Errorf("shows a token: %s", hint)
		}
		for token, ok := range map[string]bool{rwToken: true, "wrong": false} {
			cmd := exec.Command("sh", "-c", strings.Replace(hint, "curl ", "curl -sSf ", 1))
			cmd.Env = append(os.Environ(), tokenEnv+"="+token)
			if out, err := cmd.CombinedOutput(); (err == nil) != ok {
				t.Errorf("%s with %q: %v\n%s", hint, token, err, out)
			}
		}
	}
}

// What is wrong with the tokens is said before anything is opened.
func TestServeTokenErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	public := tokenFile(t)
	if err := os.Chmod(public, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env, file string
		code      int
		talk      string
	}{
		{"", "", exitError, tokensEnv + ": no tokens"},
		{",,", "", exitError, tokensEnv + ": no tokens"},
		{"ro " + roToken + ",rw short", "", exitError, tokensEnv + ": line 2: the token is shorter"},
		{"ro " + roToken, tokenFile(t), exitUsage, "take one of them"},
		{"-", filepath.Join(dir, "none"), exitError, "none: no such file"},
		{"-", public, exitError, public + ": others than the owner can get at the tokens, its mode is 0640: chmod 600 "},
	} {
		if test.file == public && runtime.GOOS == "windows" {
			continue
		}
		args := []string{"serve", dir}
		if test.env != "-" {
			t.Setenv(tokensEnv, test.env)
		} else {
			os.Unsetenv(tokensEnv) // what Setenv has saved comes back
		}
		if test.file != "" {
			args = append(args, "--token-file", test.file)
		}
		r := crowfly(args...)
		if r.code != test.code || !strings.Contains(r.err, test.talk) || strings.Contains(r.err, roToken) {
			t.Errorf("%+v: exit code %d: %s", test, r.code, r.err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the store was created")
	}
}
