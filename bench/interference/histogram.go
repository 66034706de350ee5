package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are exact below 64 ns and up to
// 3 % wide above.
type histogram struct {
	counts [(64 - fineBits) << fineBits]uint64
	total  uint64
	most   time.Duration
}

const fineBits = 5 // buckets in an octave, as a power of two

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-fineBits-1, 0)
	return shift<<fineBits + int(v>>shift)
}

// highest is the longest duration of a bucket.
func highest(bucket int) time.Duration {
	shift := max(bucket>>fineBits-1, 0)
	return time.Duration((uint64(bucket-shift<<fineBits)+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.total++
	h.most = max(h.most, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.most = max(h.most, o.most)
}

// quantile is what the part q of all durations does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	left := uint64(q * float64(h.total))
	for i, n := range h.counts {
		if left < n {
			return min(highest(i), h.most)
		}
		left -= n
	}
	return h.most
}
