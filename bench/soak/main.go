// Soak writes, deletes and reads for long, checks all that is read, and looks
// whether memory, mappings, descriptors and disk space stay what they are. See
// the README of the module.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

type config struct {
	dir    string
	keys   int
	length time.Duration
	sample time.Duration
	rate   float64 // writes a second, and reads

	hold     time.Duration // readers hold on to something for about so long
	options  db.Options
	verified int // keys after reopening
}

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) (status int) {
	c := config{hold: 10 * time.Second, verified: 100_000, options: db.Options{Sync: db.SyncInterval, BlobSize: 64 << 10}}
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.dir, "dir", "", "where to make the store, by default a temporary directory; it is removed at the end")
	f.IntVar(&c.keys, "keys", 10_000_000, "how many keys; each takes about 850 bytes of disk")
	f.DurationVar(&c.length, "for", 30*time.Minute, "how long, after the store has been filled")
	f.DurationVar(&c.sample, "sample", time.Minute, "time between two looks at what it takes")
	f.Float64Var(&c.rate, "rate", 20_000, "writes a second, and as many reads")
	if f.Parse(args) != nil {
		return 2
	}
	if c.keys < 1000 || c.length < 0 || c.sample <= 0 || c.rate <= 0 {
		fmt.Fprintln(out, "nothing to do")
		return 2
	}
	return c.run(out)
}

// run returns the exit status.
func (c config) run(out io.Writer) int {
	dir, err := os.MkdirTemp(c.dir, "crowfly-soak-")
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fmt.Fprint(out, measure.Machine(dir))
	list, err := c.soak(out, dir)
	if err != nil {
		fmt.Fprintln(out, "FAILED:", err)
		return 1
	}
	if !flat(out, list) {
		return 1
	}
	fmt.Fprintln(out, "ok")
	return 0
}

// soak fills a store, keeps it busy, and verifies it before and after it is
// closed and opened again.
func (c config) soak(out io.Writer, dir string) ([]sample, error) {
	store, err := db.Open(dir, &c.options)
	if err != nil {
		return nil, err
	}
	s := &soak{config: c, store: store, dir: dir, model: newModel(c.keys, c.options.BlobSize)}
	began := time.Now()
	if err := s.fill(); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "filled       %d keys, %d MiB, in %.1f s\n\n", c.keys, s.live.Load()>>20, time.Since(began).Seconds())
	list, err := s.run(out)
	if err != nil {
		return nil, err
	}
	return list, s.finish(out)
}
