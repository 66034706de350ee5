package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A key that anybody may have chosen can't make an export overwrite the store
// it comes from, and a directory that never was a store is not an empty one.
func TestStoreIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	crowfly := func(stdin string, args ...string) (int, string) {
		var out strings.Builder
		code := run(args, strings.NewReader(stdin), &out, &out)
		return code, out.String()
	}
	if code, out := crowfly("evil", "put", "st", "--key", "st/0000000000000001.seg", "-"); code != 0 {
		t.Fatal(out)
	}
	before, err := os.ReadFile(filepath.Join("st", "0000000000000001.seg"))
	if err != nil {
		t.Fatal(err)
	}
	if code, out := crowfly("", "export", "--force", "st", "."); code != 1 || !strings.Contains(out, "store itself") {
		t.Errorf("export: %d, %s", code, out)
	}
	after, err := os.ReadFile(filepath.Join("st", "0000000000000001.seg"))
	if err != nil || string(after) != string(before) {
		t.Error("the export changed the store")
	}
	for _, command := range []string{"ls", "stat"} {
		if code, out := crowfly("", command, "."); code != 1 || !strings.Contains(out, "no store") {
			t.Errorf("%s of a directory that is no store: %d, %s", command, code, out)
		}
	}
}
