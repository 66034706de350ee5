package fuzz

import (
	"fmt"
	"strings"
	"time"
)

// shrink leaves operations out for as long as the rest still fails and it has
// time. fails runs a history anew.
func shrink(ops []operation, fails func([]operation) bool) []operation {
	const atMost = 5 * time.Second
	start := time.Now()
	for n := len(ops) / 2; n > 0; n /= 2 {
		for from := 0; from+n <= len(ops) && time.Since(start) < atMost; {
			rest := append(append([]operation(nil), ops[:from]...), ops[from+n:]...)
			if fails(rest) {
				ops = rest
			} else {
				from += n
			}
		}
	}
	return ops
}

func writeHistory(b *strings.Builder, ops []operation) {
	for i, op := range ops {
		fmt.Fprintf(b, "%4d %v\n", i, op)
	}
}
