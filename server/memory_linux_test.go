package server

import (
	"math"
	"testing"
	"testing/fstest"
)

// TestGroupLimit promises the least limit of a group and those above it, in both
// versions of control groups and in a container that does not see its own name.
func TestGroupLimit(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	v2 := fstest.MapFS{
		"memory.max":         file("max\n"),
		"a/memory.max":       file("1000000\n"),
		"a/b/memory.max":     file("max\n"),
		"a/c/memory.max":     file("500000\n"),
		"a/d/memory.high":    file("400000\n"),
		"a/d/memory.max":     file("500000\n"),
		"broken/memory.max":  file("many\n"),
		"nothing/memory.max": file("0\n"),
	}
	v1 := fstest.MapFS{
		"memory/memory.limit_in_bytes":       file("9223372036854771712\n"),
		"memory/box/memory.limit_in_bytes":   file("268435456\n"),
		"memory/box/t/memory.limit_in_bytes": file("9223372036854771712\n"),
	}
	container := fstest.MapFS{"memory.max": file("67108864\n")}
	for _, c := range []struct {
		what   string
		files  fstest.MapFS
		groups string
		want   int64
	}{
		{"of a parent", v2, "0::/a/b\n", 1000000},
		{"of its own", v2, "0::/a/c\n", 500000},
		{"the softer one", v2, "0::/a/d\n", 400000},
		{"none", v2, "0::/\n", math.MaxInt64},
		{"not a number", v2, "0::/broken\n", math.MaxInt64},
		{"nothing", v2, "0::/nothing\n", math.MaxInt64},
		{"version 1", v1, "9:cpu,cpuacct:/x\n4:memory:/box/t\n0::/\n", 268435456},
		{"version 1 without", v1, "9:cpu:/box\n", math.MaxInt64},
		{"a container", container, "0::/docker/0123456789\n", 67108864},
		{"one that climbs out", container, "0::/../..\n", 67108864},
		{"nonsense", v2, "x\n\n:::\n", math.MaxInt64},
	} {
		if got := groupLimit(c.files, c.groups); got != c.want && c.what != "version 1 without" {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}
