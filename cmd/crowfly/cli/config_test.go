package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// settingsFile writes a file for --config.
func settingsFile(t *testing.T, text string) (name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "crowfly.json")
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

// printed is what serve would run with.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	out := mustRun(t, append([]string{"serve", dir, "--print-config"}, args...)...)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the store was opened: %v", err)
	}
	return out
}

// The command line comes before the environment, that before the file, and that
// before what is built in. Method: each setting comes from all places but some.
func TestSettings(t *testing.T) {
	const builtIn = `{
  "listen": "127.0.0.1:7070",
  "read_only": false,
  "max_conns": 10000,
  "min_rate": 4096,
  "sync": "always",
  "verify": "first",
  "space_target": 1.3,
  "compaction_rate": 67108864,
  "metrics": "auto",
  "access_log": false,
  "grace": "10s"
}
`
	if got := printed(t); got != builtIn {
		t.Errorf("by default: %s", got)
	}
	name := settingsFile(t, `{"listen": "127.0.0.1:1", "max_conns": 20, "metrics": "127.0.0.1:1", "access_log": true, "grace": "1s"}`)
	t.Setenv("CROWFLY_LISTEN", "127.0.0.1:2")
	t.Setenv("CROWFLY_METRICS", "127.0.0.1:2")
	const want = `{
  "listen": "127.0.0.1:3",
  "read_only": false,
  "max_conns": 20,
  "min_rate": 4096,
  "sync": "always",
  "verify": "first",
  "space_target": 1.3,
  "compaction_rate": 67108864,
  "metrics": "127.0.0.1:2",
  "access_log": true,
  "grace": "1s"
}
`
	if got := printed(t, "--listen", "127.0.0.1:3", "--config", name); got != want {
		t.Errorf("got %s", got)
	}
	t.Setenv("CROWFLY_CONFIG", name)
	if got := printed(t, "--listen", "127.0.0.1:3"); got != want {
		t.Errorf("with the file from the environment: %s", got)
	}
	t.Setenv("CROWFLY_ACCESS_LOG", "false")
	t.Setenv("CROWFLY_GRACE", "90s")
	if got := printed(t, "--access-log"); !strings.Contains(got, `"access_log": true`) || !strings.Contains(got, `"grace": "1m30s"`) {
		t.Errorf("got %s", got)
	}
	if got := printed(t, "--config", settingsFile(t, printed(t))); got != printed(t) {
		t.Errorf("what was printed does not come back: %s", got)
	}
}

// A file that says what nobody understands is an error that names it.
func TestBadSettings(t *testing.T) {
	for text, want := range map[string]string{
		`{"lisen": "127.0.0.1:1"}`: `unknown setting "lisen"`,
		`{"accessLog": true}`:      `unknown setting "accessLog"`,
		`{"access-log": true}`:     `unknown setting "access-log"`,
		`{"config": "x"}`:          `unknown setting "config"`,
		`{"help": true}`:           `unknown setting "help"`,
		`{"print_config": true}`:   `unknown setting "print_config"`,
		`{"listen": "127.0.0.1:1"} {"metrics": "127.0.0.1:1"}`: "crowfly.json: invalid character",
		`listen = x`:                "crowfly.json: invalid character",
		`["listen"]`:                "crowfly.json: json: cannot unmarshal array",
		`{"grace": "soon"}`:         "--grace",
		`{"access_log": "perhaps"}`: "--access-log",
	} {
		r := crowfly("serve", "x", "--print-config", "--config", settingsFile(t, text))
		if r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%s: exit code %d, %s", text, r.code, r.err)
		}
	}
	if r := crowfly("serve", "x", "--print-config", "--config", "/does/not/exist"); r.code != exitUsage || !strings.Contains(r.err, "/does/not/exist") {
		t.Errorf("no file: exit code %d, %s", r.code, r.err)
	}
	t.Setenv("CROWFLY_GRACE", "soon")
	if r := crowfly("serve", "x", "--print-config"); r.code != exitUsage || !strings.Contains(r.err, "CROWFLY_GRACE") {
		t.Errorf("environment: exit code %d, %s", r.code, r.err)
	}
	mustRun(t, "version") // which it is not about
}

// Every flag of serve can be set by the environment, under its own name.
func TestSettingsOfEnvironment(t *testing.T) {
	for _, flag := range configurable(serveModel(t, &commands{})) {
		want := "CROWFLY_" + strings.ToUpper(settingName(flag))
		if len(flag.Envs) != 1 || flag.Envs[0] != want {
			t.Errorf("--%s: %q, want %s", flag.Name, flag.Envs, want)
		}
	}
}

// serveModel is the command serve of a command line.
func serveModel(t *testing.T, grammar any) *kong.Node {
	t.Helper()
	vars := kong.Vars{"listen": "", "metrics": "", "metrics_address": ""}
	parser, err := kong.New(grammar, vars, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Leaves(false) {
		if command.Name == "serve" {
			return command
		}
	}
	t.Fatal("no such command")
	return nil
}
