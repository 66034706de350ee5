// Space measures how much disk stores take for what they hold: after a lot of
// overwriting and deleting, while they have nothing else to do, and after they
// were told to compact. See the README of the module.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
)

// What crowfly has to keep to, in bytes on disk over live bytes.
const (
	idleTarget    = 1.3 // when it has had config.watch
	compactTarget = 1.1 // and after Compact
	heldTarget    = 1.4 // like idleTarget, with readers that hold on to what was removed
)

type config struct {
	dir    string
	live   int64    // bytes, once all is written and deleted
	stores []string // names, in order

	sample  time.Duration // between two looks at the disk
	watch   time.Duration // after the last write
	settle  time.Duration // after a compaction
	segment int64         // Options.SegmentSize of crowfly, 0 for the default
}

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) (status int) {
	c := config{sample: time.Second, watch: 60 * time.Second, settle: 10 * time.Second}
	f := flag.NewFlagSet("space", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.dir, "dir", "", "where to make the stores, by default a temporary directory; they are removed at the end")
	f.Int64Var(&c.live, "live", 1<<30, "`bytes` of values that are left at the end")
	list := f.String("store", strings.Join(names(), ","), "which stores, in which order")
	if f.Parse(args) != nil {
		return 2
	}
	c.stores = strings.Split(*list, ",")
	for _, name := range c.stores {
		if !slices.Contains(names(), name) {
			fmt.Fprintf(out, "%q is none of %s\n", name, strings.Join(names(), ", "))
			return 2
		}
	}
	if c.live < valueSize {
		fmt.Fprintf(out, "-live must be at least %d\n", valueSize)
		return 2
	}
	return c.run(out)
}

// run measures one store after the other and returns the exit status.
func (c config) run(out io.Writer) int {
	dir, err := os.MkdirTemp(c.dir, "crowfly-space-")
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer os.RemoveAll(dir)
	w := newWorkload(c.live)
	fmt.Fprint(out, measure.Machine(dir))
	fmt.Fprintf(out, "workload     %s\n\n", w)
	var results []*result
	for _, name := range c.stores {
		r, err := c.measure(out, name, dir, w)
		if err != nil {
			fmt.Fprintf(out, "%s: %v\n", name, err)
			return 1
		}
		results = append(results, r)
	}
	fmt.Fprintln(out)
	c.table(out, results)
	missed := false
	for _, r := range results {
		for _, text := range r.missed() {
			missed = true
			fmt.Fprintf(out, "MISSED: %s\n", text)
		}
	}
	if missed {
		return 1
	}
	fmt.Fprintln(out, "ok")
	return 0
}
