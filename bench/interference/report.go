package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
)

// kind is what is measured of a load.
type kind struct {
	name string
	of   func(m *measured) *measure.Histogram
}

var kinds = []kind{
	{"View", func(m *measured) *measure.Histogram { return &m.view.call }},
	{"Put", func(m *measured) *measure.Histogram { return &m.put.call }},
	{"a sleeper's delay", func(m *measured) *measure.Histogram { return &m.view.wake }},
}

const judged = 2 // of the kinds, the first ones

// quantile is the median over the phases.
func (k kind) quantile(list []*measured, q float64) time.Duration {
	var each []time.Duration
	for _, m := range list {
		each = append(each, k.of(m).Quantile(q))
	}
	return measure.Median(each)
}

// ratio is the one between the medians.
func (k kind) ratio(s *series, q float64) float64 {
	return float64(k.quantile(s.going, q)) / float64(k.quantile(s.paused, q))
}

// ratioOfPairs is the median of the ratios of each alternation.
func (k kind) ratioOfPairs(s *series, q float64) float64 {
	var list []float64
	for i := range s.going {
		list = append(list, float64(k.of(s.going[i]).Quantile(q))/float64(k.of(s.paused[i]).Quantile(q)))
	}
	return measure.Median(list)
}

// table prints medians over the phases.
func table(out io.Writer, list []*series) {
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "medians of the phases\tp50\tp99\tp99.9\tmost\tcalls\tratio of p99\tmedian of ratios\t\n")
	for _, s := range list {
		for _, k := range kinds {
			k.line(t, s.name+", "+k.name+", paused", s.paused, "\t")
			k.line(t, "going", s.going, fmt.Sprintf("%.2f\t%.2f", k.ratio(s, 0.99), k.ratioOfPairs(s, 0.99)))
		}
	}
	t.Flush()
	for _, s := range list {
		var took time.Duration
		for _, m := range s.going {
			took += m.took
		}
		fmt.Fprintf(out, "%s: compaction read %.0f MiB/s while it went on\n", s.name, float64(s.compacted>>20)/took.Seconds())
	}
}

func (k kind) line(out io.Writer, name string, phases []*measured, ratio string) {
	var calls uint64
	var most []time.Duration
	for _, m := range phases {
		calls += k.of(m).Total
		most = append(most, k.of(m).Most)
	}
	fmt.Fprintf(out, "%s\t%v\t%v\t%v\t%v\t%d\t%s\t\n", name,
		measure.Round(k.quantile(phases, 0.5)), measure.Round(k.quantile(phases, 0.99)), measure.Round(k.quantile(phases, 0.999)),
		measure.Round(measure.Median(most)), calls, ratio)
}

// missed says what takes too long while compaction goes on.
func (s *series) missed() (list []string) {
	for _, k := range kinds[:judged] {
		if r := k.ratio(s, 0.99); r > target {
			list = append(list, fmt.Sprintf("at the %s the p99 of %s is %.2f times what it is without compaction, more than %.1f",
				s.name, k.name, r, target))
		}
	}
	return list
}
