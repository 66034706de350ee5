package vfs

import (
	"math"
	"testing"
)

// TestAvailable promises that a file system which does not tell its size is not
// taken for full, nor one that is too large for the arithmetic.
func TestAvailable(t *testing.T) {
	for _, c := range []struct {
		what               string
		blocks, free, size uint64
		want               int64
	}{
		{"a disk", 1000, 10, 4096, 40960},
		{"a full disk", 1000, 0, 4096, 0},
		{"no size told", 0, 0, 4096, math.MaxInt64},
		{"no block size told", 1000, 10, 0, math.MaxInt64},
		{"as large as can be", math.MaxUint64, math.MaxUint64, 4096, math.MaxInt64},
		{"beyond 63 bits", 1 << 62, 1 << 62, 2, math.MaxInt64},
	} {
		if got := available(c.blocks, c.free, c.size); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.what, got, c.want)
		}
	}
}
