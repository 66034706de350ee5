package vfs

import (
	"runtime"
	"testing"
)

func TestWords(t *testing.T) {
	for _, n := range []int{0, 1, minWordBytes/8 - 1, minWordBytes / 8, 1<<18 + 1} {
		w := NewWords(n)
		words := w.Slice()
		if len(words) != n {
			t.Fatalf("%d words, want %d", len(words), n)
		}
		for i := range words {
			if words[i] != 0 {
				t.Fatalf("word %d of %d is not zero", i, n)
			}
			words[i] = uint64(i)
		}
		runtime.GC()
		for i := range words {
			if words[i] != uint64(i) {
				t.Fatalf("word %d of %d changed", i, n)
			}
		}
		runtime.KeepAlive(w)
	}
}
