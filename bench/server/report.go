package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
)

// median over the rounds of what is taken from each.
func (l *line) median(of func(o outcome) float64) float64 {
	var each []float64
	for _, o := range l.rounds {
		each = append(each, of(o))
	}
	return measure.Median(each)
}

func (o outcome) rate() float64 { return o.Requests / o.Took.Seconds() }

// cpu is the processor time of the server for each request, in microseconds.
func (o outcome) cpu() float64 { return o.Server.CPU.Seconds() * 1e6 / o.Requests }

func (o outcome) user() float64   { return o.cpu() * o.Server.userPart() }
func (o outcome) system() float64 { return o.cpu() * (1 - o.Server.userPart()) }
func (o outcome) client() float64 { return o.Client.CPU.Seconds() * 1e6 / o.Requests }

func (o outcome) voluntary() float64   { return float64(o.Server.Voluntary) / o.Requests }
func (o outcome) involuntary() float64 { return float64(o.Server.Involuntary) / o.Requests }

func (o outcome) p50() float64  { return o.P50.Seconds() }
func (o outcome) p99() float64  { return o.P99.Seconds() }
func (o outcome) p999() float64 { return o.P999.Seconds() }

// perGB is the processor time for 10^9 bytes, in seconds, if each request takes
// so many microseconds.
func (c *cell) perGB(cpu float64) float64 { return cpu * 1e3 / float64(c.size) }

// sum is how many system calls there are, but for those that Go's runtime makes
// by the clock, of which there are many under strace, where all takes so long.
func sum(calls map[string]float64) (n float64) {
	for name, c := range calls {
		if name != "nanosleep" {
			n += c
		}
	}
	return n
}

// table prints medians over the rounds.
func table(out io.Writer, cells []*cell) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range cells {
		fmt.Fprintf(t, "\n%s, %d connections\trequests/s\tp50\tp99\tp99.9\tCPU us\tuser\tsystem\tCPU s/GB\tsleeps\tpreempted\tcalls\tclient us\t\n", bytesOf(c.size), c.conns)
		for _, l := range c.lines {
			cpu := l.median(outcome.cpu)
			fmt.Fprintf(t, "%s\t%.0f\t%v\t%v\t%v\t%.2f\t%.2f\t%.2f\t%.3f\t%.3f\t%.3f\t%.2f\t%.2f\t\n", l.label(), l.median(outcome.rate),
				duration(l.median(outcome.p50)), duration(l.median(outcome.p99)), duration(l.median(outcome.p999)),
				cpu, l.median(outcome.user), l.median(outcome.system), c.perGB(cpu),
				l.median(outcome.voluntary), l.median(outcome.involuntary), sum(l.calls), l.median(outcome.client))
		}
	}
	t.Flush()
	for _, c := range cells {
		if len(c.lines[0].calls) == 0 {
			continue
		}
		fmt.Fprintf(out, "\nsystem calls for a request, %s, %d connections\n", bytesOf(c.size), c.conns)
		for _, l := range c.lines {
			fmt.Fprintf(out, "%s: %s\n", l.label(), callList(l.calls))
		}
	}
	fmt.Fprintln(out)
}

func duration(seconds float64) time.Duration {
	return measure.Round(time.Duration(seconds * float64(time.Second)))
}

func bytesOf(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// callList has the most frequent first, and leaves out what is rare.
func callList(calls map[string]float64) string {
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int {
		if calls[a] != calls[b] && calls[a] > calls[b] {
			return -1
		}
		return 1
	})
	var all []string
	for _, name := range names {
		if calls[name] >= 0.01 {
			all = append(all, fmt.Sprintf("%s %.2f", name, calls[name]))
		}
	}
	return strings.Join(all, ", ")
}
