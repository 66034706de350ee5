// Interference measures what compaction costs those who read and write
// meanwhile: the latencies of View and of synced Put while compaction is paused
// and while it goes on, in turn. See the README of the module.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
)

// target is how many times as long the slowest hundredth of calls may take
// while compaction goes on at the default rate.
const target = 1.5

type config struct {
	dir          string
	live         int64 // bytes in each store
	phase        time.Duration
	alternations int

	readers, writers int
	part             float64 // of the capacity for puts
	views            float64 // a second

	settle   time.Duration // before a phase
	capacity time.Duration // how long that is measured
	segment  int64         // Options.SegmentSize, 0 for the default
}

func (c config) keys() int { return int(c.live / valueSize) }

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) (status int) {
	c := config{settle: time.Second, capacity: 3 * time.Second}
	f := flag.NewFlagSet("interference", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.dir, "dir", "", "where to make the stores, by default a temporary directory; they are removed at the end")
	f.Int64Var(&c.live, "live", 2<<30, "`bytes` of values in each of the two stores")
	f.DurationVar(&c.phase, "phase", 2*time.Second, "how long to measure before compaction is paused, or goes on")
	f.IntVar(&c.alternations, "alternations", 20, "how often each store does both")
	f.IntVar(&c.readers, "readers", 2, "goroutines that view")
	f.IntVar(&c.writers, "writers", 4, "goroutines that put")
	f.Float64Var(&c.part, "load", 0.25, "puts a second, as a part of how many the store can do")
	f.Float64Var(&c.views, "views", 4000, "views a second")
	if f.Parse(args) != nil {
		return 2
	}
	if c.keys() < batchSize || c.alternations < 1 || c.readers < 1 || c.writers < 1 || c.part <= 0 || c.views <= 0 {
		fmt.Fprintln(out, "nothing to measure")
		return 2
	}
	return c.run(out)
}

// run returns the exit status.
func (c config) run(out io.Writer) int {
	dir, err := os.MkdirTemp(c.dir, "crowfly-interference-")
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fmt.Fprint(out, measure.Machine(dir))
	series, err := c.measure(out, dir)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	table(out, series)
	missed := series[0].missed()
	for _, text := range missed {
		fmt.Fprintln(out, "MISSED:", text)
	}
	if len(missed) > 0 {
		return 1
	}
	fmt.Fprintln(out, "ok")
	return 0
}
