// Server measures the server of crowfly beside nginx and beside the least that
// a server can do, all in one run. See the README of the module.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
)

type config struct {
	dir     string
	length  time.Duration // of one measurement
	rounds  int
	sizes   []int64 // of objects
	conns   []int   // keep-alive connections
	only    []string
	traced  int    // requests whose system calls are counted, 0 for none
	profile string // where to write a CPU profile of crowfly

	warm  time.Duration // before a measurement
	bytes int64         // of all objects of one size, if there are too many of them
}

func main() {
	if child := os.Getenv(role); child != "" {
		os.Exit(runChild(child))
	}
	os.Exit(run(os.Args[1:], os.Stdout))
}

func run(args []string, out io.Writer) (status int) {
	c := config{warm: 200 * time.Millisecond, bytes: 256 << 20}
	f := flag.NewFlagSet("server", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.dir, "dir", "", "where to make store and files, by default a temporary directory; they are removed at the end")
	f.DurationVar(&c.length, "for", 400*time.Millisecond, "how long to measure a server with one size and number of connections, in each round")
	f.IntVar(&c.rounds, "rounds", 15, "how often each is measured")
	sizes := f.String("sizes", "1024,4096,65536,1048576,67108864", "`bytes` of objects")
	conns := f.String("conns", "16,64", "numbers of keep-alive `connections`")
	only := f.String("only", "", "measure only these `servers`, separated by commas, and judge nothing")
	f.IntVar(&c.traced, "traced", 2000, "count the system calls of so many requests, 0 for none")
	f.StringVar(&c.profile, "profile", "", "write a CPU profile of crowfly to this `file`")
	if f.Parse(args) != nil {
		return 2
	}
	var err error
	if c.sizes, err = numbers[int64](*sizes); err == nil {
		c.conns, err = numbers[int](*conns)
	}
	if *only != "" {
		c.only = strings.Split(*only, ",")
	}
	if err != nil || c.length <= 0 || c.rounds < 1 {
		fmt.Fprintln(out, "nothing to measure:", err)
		return 2
	}
	return c.run(out)
}

// numbers reads positive numbers separated by commas.
func numbers[T int | int64](list string) (all []T, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is not a positive number", text)
		}
		all = append(all, T(n))
	}
	return all, nil
}

// run returns the exit status.
func (c config) run(out io.Writer) int {
	dir, err := os.MkdirTemp(c.dir, "crowfly-server-")
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fmt.Fprint(out, measure.Machine(dir))
	cells, err := c.measure(out, dir)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	table(out, cells)
	if len(c.only) > 0 {
		return 0
	}
	kept := true
	for _, p := range promises(cells) {
		fmt.Fprintln(out, p)
		kept = kept && p.kept()
	}
	if !kept {
		return 1
	}
	fmt.Fprintln(out, "ok")
	return 0
}

// class is the objects of one size.
type class struct {
	size  int64
	count int
}

// classes are as many objects of each size as fit into c.bytes, but at least 4
// and at most 1000.
func (c config) classes() (list []class) {
	for _, size := range c.sizes {
		list = append(list, class{size, int(min(max(c.bytes/size, 4), 1000))})
	}
	return list
}

// object names an object: its key, and its path below the directory of files.
func object(dst []byte, size int64, number int) []byte {
	dst = strconv.AppendInt(dst, size, 10)
	return strconv.AppendInt(append(dst, '/'), int64(number), 10)
}

// fill makes the bytes of an object, check compares them.
func fill(dst []byte, number int) { measure.Fill(dst, uint64(number), uint64(len(dst))) }

func check(got []byte, number int) error {
	return measure.Check(got, uint64(number), uint64(len(got)))
}

// wanted reports whether a server is to be measured.
func (c config) wanted(name string) bool { return len(c.only) == 0 || slices.Contains(c.only, name) }
