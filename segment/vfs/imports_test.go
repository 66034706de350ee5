package vfs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file is the law of the house: who imports whom, who talks to the
// operating system, and who frees memory. It reads every file of the module
// that is not a test, under whatever build tags.

const module = "github.com/crowfly/crowfly"

// layers are the packages of the module with what lies below them. A package
// imports only its own layer and lower ones.
var layers = []string{"segment/vfs", "segment/vfs/simdisk", "segment/lockorder", "segment", "index", "db/manifest", "db/check", "db", "server", "cmd", "fuzz"}

// layerOf returns the position in layers of a package given by its directory
// in the module, or -1.
func layerOf(dir string) int {
	best := -1
	for i, l := range layers {
		if within(dir, l) && (best < 0 || len(l) > len(layers[best])) {
			best = i
		}
	}
	return best
}

// within reports whether a slash-separated path is root or lies below it.
func within(p, root string) bool {
	return p == root || strings.HasPrefix(p, root+"/")
}

// isEngine says which packages leave the operating system to segment/vfs.
func isEngine(dir string) bool {
	return dir != "segment/vfs" && (within(dir, "segment") || within(dir, "index") || within(dir, "db"))
}

// libraries are the only modules besides this one, with who may import them;
// nil means everybody.
var libraries = map[string][]string{
	"golang.org/x/sys":             nil,
	"github.com/cespare/xxhash/v2": nil,
	"github.com/google/btree":      nil,
	"github.com/alecthomas/kong":   {"cmd"},
	"pgregory.net/rapid":           {"fuzz"},
}

// checkImports returns what is wrong with the imports of one file, which is
// given by its path in the module.
func checkImports(file string, imports []string) (wrong []string) {
	dir := path.Dir(file)
	if layerOf(dir) < 0 {
		return []string{file + " belongs to no layer"}
	}
	for _, target := range imports {
		if reason := checkImport(dir, target); reason != "" {
			wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", file, target, reason))
		}
	}
	return wrong
}

func checkImport(dir, target string) string {
	if within(target, module) {
		return checkOwn(dir, strings.TrimPrefix(strings.TrimPrefix(target, module), "/"))
	}
	first, _, _ := strings.Cut(target, "/")
	if strings.Contains(first, ".") {
		return checkLibrary(dir, target)
	}
	if isEngine(dir) && (target == "io/ioutil" || strings.HasPrefix(target, "os/")) {
		return "only segment/vfs talks to the operating system"
	}
	return ""
}

func checkOwn(dir, target string) string {
	switch from, to := layerOf(dir), layerOf(target); {
	case to < 0:
		return "it belongs to no layer"
	case to > from:
		return "it lies above"
	case layers[to] == "segment/vfs/simdisk" && from != to && layers[from] != "fuzz":
		return "the simulated disk is for tests"
	}
	return ""
}

func checkLibrary(dir, target string) string {
	for lib, users := range libraries {
		if !within(target, lib) {
			continue
		}
		if users != nil && !slices.Contains(users, layers[layerOf(dir)]) {
			return "it is for " + strings.Join(users, ", ") + " only"
		}
		if lib == "golang.org/x/sys" && isEngine(dir) {
			return "only segment/vfs talks to the operating system"
		}
		return ""
	}
	return "no such dependency is allowed"
}

// Names allowed from packages that are otherwise for segment/vfs: os.File is
// part of the interface, errors are for comparing.
var (
	osNames      = regexp.MustCompile(`^File$`)
	syscallNames = regexp.MustCompile(`^(E[A-Z0-9]+|Errno)$`)
)

// keepers are the only files in which these names may appear.
var keepers = map[string][]string{
	"AddCleanup":   {"segment/vfs/owner.go"},
	"SetFinalizer": {},
	"Munmap":       {},
	"MunmapPtr":    {"segment/vfs/map_mmap.go", "segment/vfs/migrate_linux.go", "segment/vfs/words_linux.go"},
	"SYS_MUNMAP":   {},
	"MAP_FIXED":    {"segment/vfs/map_mmap.go", "segment/vfs/migrate_linux.go"},
	"MREMAP_FIXED": {"segment/vfs/migrate_linux.go"},
}

// checkUses returns what is wrong with the names one file uses.
func checkUses(file string, syntax *ast.File) (wrong []string) {
	dir := path.Dir(file)
	complain := func(what string) { wrong = append(wrong, file+" uses "+what) }
	packages := systemPackages(syntax)
	if pkg, ok := packages["."]; ok && isEngine(dir) {
		complain(pkg + " without its name")
	}
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if files, ok := keepers[n.Name]; ok && !slices.Contains(files, file) {
				complain(n.Name)
			}
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && isEngine(dir) && !mayUse(dir, packages[pkg.Name], n.Sel.Name) {
				complain(packages[pkg.Name] + "." + n.Sel.Name)
			}
		}
		return true
	})
	return wrong
}

// systemPackages returns the names under which a file knows os and syscall.
func systemPackages(syntax *ast.File) map[string]string {
	known := make(map[string]string)
	for _, spec := range syntax.Imports {
		target, _ := strconv.Unquote(spec.Path.Value)
		if target != "os" && target != "syscall" {
			continue
		}
		if spec.Name != nil {
			known[spec.Name.Name] = target
		} else {
			known[target] = target
		}
	}
	return known
}

func mayUse(dir, pkg, name string) bool {
	switch pkg {
	case "os":
		return osNames.MatchString(name)
	case "syscall":
		return syscallNames.MatchString(name) || within(dir, "db") && (name == "RawConn" || name == "Conn")
	}
	return true
}

// checkRequires returns what is wrong with the requirements of a go.mod.
func checkRequires(gomod string) (wrong []string) {
	requirement := regexp.MustCompile(`(?m)^\s*(?:require\s+)?([\w./~-]+\.[\w./~-]+)\s+v\d`)
	for _, m := range requirement.FindAllStringSubmatch(gomod, -1) {
		if _, ok := libraries[m[1]]; !ok {
			wrong = append(wrong, "go.mod requires "+m[1])
		}
	}
	return wrong
}

// moduleRoot is the directory of go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above this package")
		}
		dir = parent
	}
}

// sources returns the Go files of the module that are not tests, as paths in
// it. Nested modules, test data and hidden directories don't belong to it.
func sources(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		if e.IsDir() {
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || e.Name() == "testdata" || strings.ContainsAny(e.Name()[:1], "._") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			rel, err := filepath.Rel(root, name)
			files = append(files, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestHouseRules(t *testing.T) {
	root := moduleRoot(t)
	files := sources(t, root)
	if len(files) < 10 || !slices.Contains(files, "segment/vfs/owner.go") {
		t.Fatalf("found only %q", files)
	}
	for _, file := range files {
		syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		var imports []string
		for _, spec := range syntax.Imports {
			target, _ := strconv.Unquote(spec.Path.Value)
			imports = append(imports, target)
		}
		for _, wrong := range append(checkImports(file, imports), checkUses(file, syntax)...) {
			t.Error(wrong)
		}
	}
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range checkRequires(string(gomod)) {
		t.Error(wrong)
	}
}

func TestImportRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		file, path string
		allowed    bool
	}{
		{"segment/vfs/a.go", "os", true},
		{"segment/vfs/a.go", "golang.org/x/sys/unix", true},
		{"segment/vfs/a.go", module + "/segment", false},
		{"segment/vfs/a.go", module + "/segment/vfs/simdisk", false},
		{"segment/vfs/simdisk/a.go", module + "/segment/vfs", true},
		{"segment/vfs/simdisk/a.go", "golang.org/x/sys/unix", false},
		{"segment/vfs/simdisk/a.go", "os/exec", false},
		{"segment/a.go", module + "/segment/vfs", true},
		{"segment/a.go", module + "/segment/vfs/simdisk", false},
		{"segment/a.go", module + "/index", false},
		{"segment/a.go", "golang.org/x/sys/unix", false},
		{"segment/a.go", "github.com/cespare/xxhash/v2", true},
		{"segment/a.go", "github.com/cespare/xxhash", false},
		{"index/a.go", module + "/segment", true},
		{"index/a.go", module + "/db", false},
		{"index/a.go", "github.com/google/btree", true},
		{"index/a.go", "github.com/google/btreemap", false},
		{"db/a.go", module + "/index", true},
		{"db/a.go", module + "/server", false},
		{"db/a.go", module + "/fuzz", false},
		{"db/a.go", "github.com/alecthomas/kong", false},
		{"db/a.go", "pgregory.net/rapid", false},
		{"db/a.go", "encoding/binary", true},
		{"db/a.go", "os/signal", false},
		{"server/a.go", "golang.org/x/sys/unix", true},
		{"server/a.go", module + "/server/s3", true},
		{"server/s3/a.go", module + "/db", true},
		{"server/s3/a.go", module + "/cmd/crowfly", false},
		{"server/a.go", "github.com/alecthomas/kong", false},
		{"server/a.go", "github.com/some/router", false},
		{"cmd/crowfly/a.go", "github.com/alecthomas/kong", true},
		{"cmd/crowfly/a.go", module + "/server/s3", true},
		{"cmd/crowfly/a.go", module + "/fuzz", false},
		{"cmd/crowfly/a.go", "os/signal", true},
		{"fuzz/a.go", module + "/cmd/crowfly", true},
		{"fuzz/a.go", module + "/segment/vfs/simdisk", true},
		{"fuzz/a.go", "pgregory.net/rapid", true},
		{"fuzz/a.go", "github.com/alecthomas/kong", false},
		{"util/a.go", "fmt", false},
		{"a.go", "fmt", false},
		{"db/a.go", module + "/util", false},
		{"db/a.go", module, false},
	} {
		if wrong := checkImports(c.file, []string{c.path}); (len(wrong) == 0) != c.allowed {
			t.Errorf("%s importing %s: %q, want allowed = %v", c.file, c.path, wrong, c.allowed)
		}
	}
}

func TestUseRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		file, imports, expr string
		allowed             bool
	}{
		{"db/a.go", `"os"`, "(*os.File)(nil)", true},
		{"db/a.go", `"os"`, "os.Remove", false},
		{"db/a.go", `hidden "os"`, "hidden.Remove", false},
		{"db/a.go", `. "os"`, "Remove", false},
		{"server/a.go", `"os"`, "os.Remove", true},
		{"segment/a.go", `"syscall"`, "syscall.ENOSPC", true},
		{"segment/a.go", `"syscall"`, "syscall.Exec", false},
		{"segment/a.go", `"syscall"`, "syscall.RawConn(nil)", false},
		{"db/a.go", `"syscall"`, "syscall.RawConn(nil)", true},
		{"db/a.go", `"syscall"`, "syscall.Unlink", false},
		{"segment/vfs/simdisk/a.go", `"os"`, "os.Open", false},
		{"segment/vfs/a.go", `"os"`, "os.Open", true},
		{"segment/vfs/a.go", `"runtime"`, "runtime.AddCleanup", false},
		{"segment/vfs/owner.go", `"runtime"`, "runtime.AddCleanup", true},
		{"server/a.go", `"runtime"`, "runtime.SetFinalizer", false},
		{"fuzz/a.go", `. "runtime"`, "AddCleanup", false},
		{"server/a.go", `"golang.org/x/sys/unix"`, "unix.Munmap", false},
		{"server/a.go", `"syscall"`, "syscall.SYS_MUNMAP", false},
		{"segment/vfs/words_linux.go", `"golang.org/x/sys/unix"`, "unix.MunmapPtr", true},
		{"segment/vfs/words_linux.go", `"golang.org/x/sys/unix"`, "unix.MAP_FIXED", false},
	} {
		src := fmt.Sprintf("package a\nimport %s\nvar _ = %s\n", c.imports, c.expr)
		syntax, err := parser.ParseFile(token.NewFileSet(), c.file, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := checkUses(c.file, syntax); (len(wrong) == 0) != c.allowed {
			t.Errorf("%s using %s: %q, want allowed = %v", c.file, c.expr, wrong, c.allowed)
		}
	}
}

func TestRequireRuleCanFail(t *testing.T) {
	good := "module x\n\ngo 1.26.0\n\nrequire pgregory.net/rapid v1.2.0\nrequire (\n\tgolang.org/x/sys v0.1.0 // indirect\n\tgithub.com/google/btree v1.1.3\n)\n"
	if wrong := checkRequires(good); wrong != nil {
		t.Error(wrong)
	}
	bad := good + "require github.com/spf13/cobra v1.0.0\nrequire (\n\tgopkg.in/yaml.v3 v3.0.1\n)\n"
	if wrong := checkRequires(bad); len(wrong) != 2 {
		t.Errorf("got %q, want two complaints", wrong)
	}
}
