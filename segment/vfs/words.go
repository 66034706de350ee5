package vfs

// Words is a table of 8-byte words that starts out zero. A large one lies
// outside the Go heap: the collector neither scans nor counts it, and it may
// use huge pages.
type Words struct {
	words []uint64
}

// minWordBytes is the size from which a table is worth a mapping of its own.
const minWordBytes = 64 << 10

// NewWords returns n zero words.
func NewWords(n int) *Words {
	if n*8 >= minWordBytes {
		if w := offHeapWords(n); w != nil {
			return w
		}
	}
	return &Words{words: make([]uint64, n)}
}

// Slice returns the words. It is valid as long as w is reachable and no
// longer: users hold w, not the slice, and end with runtime.KeepAlive(w).
func (w *Words) Slice() []uint64 { return w.words }
