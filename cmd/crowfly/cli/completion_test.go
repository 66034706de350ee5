package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// completions are what bash proposes for the last word.
func completions(t *testing.T, script string, words ...string) string {
	t.Helper()
	const ask = `. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _crowfly; echo "${COMPREPLY[*]}"`
	cmd := exec.Command("bash", append([]string{"-uc", ask, script, "crowfly"}, words...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return strings.TrimSpace(string(out))
}

func TestCompletion(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
	tmp := t.TempDir()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := filepath.Join(tmp, shell)
		if err := os.WriteFile(script, []byte(mustRun(t, "completion", shell)), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("there is no %s to read its script", shell)
			continue
		}
		if out, err := exec.Command(shell, "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	script := filepath.Join(tmp, "bash")
	for _, test := range []struct{ words, want string }{
		{"se", "serve"},
		{"c", "cp compact completion"},
		{"x", ""},
		{"put --if", "--if-absent --if-match"},
		{"get dir key --r", "--range"},
		{"get dir", ""}, // file names
		{"completion z", "zsh"},
	} {
		if got := strings.Join(strings.Fields(completions(t, script, strings.Fields(test.words)...)), " "); got != test.want {
			t.Errorf("%s: %q, want %q", test.words, got, test.want)
		}
	}
	if got := completions(t, script, "get", ""); got != "" {
		t.Errorf("%q in the place of file names", got)
	}
}
