package measure

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Quantiles are those of the sorted list, and never more than 1/32 above.
// Method: random durations over nine orders of magnitude.
func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h, parts Histogram
	var list []time.Duration
	for range 10_000 {
		d := time.Duration(rng.Uint64() >> (20 + rng.IntN(44)))
		list = append(list, d)
		h.Add(d)
		if len(list)%2 == 0 {
			parts.Merge(&h)
			h = Histogram{}
		}
	}
	slices.Sort(list)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := list[min(int(q*float64(len(list))), len(list)-1)]
		if got := parts.Quantile(q); got < want || got > want+want/32 {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 1<<62 + 1, 1<<63 - 1} {
		if b := bucketOf(d); highest(b) < d || b > 0 && highest(b-1) >= d {
			t.Errorf("%d is in bucket %d, up to %d", d, b, highest(b))
		}
	}
}
