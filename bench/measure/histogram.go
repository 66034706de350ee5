package measure

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// Histogram counts durations in buckets that are exact below 64 ns and up to
// 3 % wide above. It is for one goroutine.
type Histogram struct {
	counts [(64 - fineBits) << fineBits]uint64
	Total  uint64
	Most   time.Duration // the longest
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

// Add counts one more.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.Total++
	h.Most = max(h.Most, d)
}

// Merge counts all that another one has counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.Total += o.Total
	h.Most = max(h.Most, o.Most)
}

// Quantile is what the part q of all durations does not exceed.
func (h *Histogram) Quantile(q float64) time.Duration {
	left := uint64(q * float64(h.Total))
	for i, n := range h.counts {
		if left < n {
			return min(highest(i), h.Most)
		}
		left -= n
	}
	return h.Most
}

// Round leaves three digits.
func Round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// Median of a list, which it sorts. Of an even number it is the greater one of
// the two in the middle.
func Median[T cmp.Ordered](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}
