package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// table prints the results, one line a store, and below it what the figures of
// crowfly are made of.
func (c config) table(out io.Writer, results []*result) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "allocated over live\twritten in s\tat the last write\tat most %.1f after s\tafter %.0f s\tcompacted in s\tthen\tand %.0f s later\tverified\t\n",
		idleTarget, c.watch.Seconds(), c.settle.Seconds())
	for _, r := range results {
		reached := "never"
		if at, ok := r.idle.reached(idleTarget); ok {
			reached = fmt.Sprintf("%.0f", at.Seconds())
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.2f\t%s\t%.2f\t%.1f\t%.2f\t%.2f\t%s\t\n", r.store, r.wrote.Seconds(),
			r.idle.first().ratio, reached, r.idle.last().ratio,
			r.compacted.Seconds(), r.after.first().ratio, r.after.last().ratio, verdict(r))
	}
	t.Flush()
	fmt.Fprintln(out)
	fmt.Fprintf(t, "MiB\tfiles\tunlinked\tsum\tPinned.Bytes\tPinned.Moved\t\n")
	for _, r := range results {
		line(t, r.store+" at the last write", r.idle.first())
		line(t, fmt.Sprintf("after %.0f s", c.watch.Seconds()), r.idle.last())
		line(t, "compacted", r.after.first())
		line(t, fmt.Sprintf("and %.0f s later", c.settle.Seconds()), r.after.last())
	}
	t.Flush()
}

func line(out io.Writer, moment string, s sample) {
	fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t\n", moment,
		s.Files>>20, s.Unlinked>>20, s.Sum()>>20, s.disk>>20, s.memory>>20)
}

func verdict(r *result) string {
	if r.checked != nil || r.failed != nil {
		return "NO"
	}
	return "yes"
}

// missed is what the result says against a store: wrong values of any, and
// too much space of crowfly.
func (r *result) missed() (list []string) {
	for _, err := range []error{r.checked, r.failed} {
		if err != nil {
			list = append(list, fmt.Sprintf("%s: %v", r.store, err))
		}
	}
	limit := func(when string, s sample, target float64) {
		if s.ratio > target {
			list = append(list, fmt.Sprintf("%s takes %.3f times its live bytes %s, more than %.1f", r.store, s.ratio, when, target))
		}
	}
	switch r.store {
	case "crowfly":
		limit("when it was left alone", r.idle.last(), idleTarget)
		limit("after Compact", r.after.last(), compactTarget)
	case "held":
		limit("when it was left alone", r.idle.last(), heldTarget)
	}
	return list
}
