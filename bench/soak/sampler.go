package main

import (
	"fmt"
	"io"
	"time"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

// sample is what everything is like at one moment.
type sample struct {
	at            time.Time
	process       measure.Process
	space         measure.Space
	live          int64 // bytes of keys and values
	writes, reads int64 // so far
	stats         db.Stats
}

func (s *soak) take() (sample, error) {
	p, err := measure.ThisProcess()
	if err != nil {
		return sample{}, err
	}
	space, err := measure.Allocated(s.dir)
	return sample{time.Now(), p, space, s.live.Load(), s.writes.Load(), s.reads.Load(), s.store.Stats()}, err
}

// sampler takes samples until the end and prints them.
func (s *soak) sampler(out io.Writer) (list []sample, err error) {
	fmt.Fprintf(out, "%8s %9s %9s %8s %8s %6s %6s %6s %6s %6s %8s %8s %8s %6s %8s %8s %8s %8s %8s %4s %4s\n",
		"seconds", "writes/s", "reads/s", "anon", "file", "shmem", "heap", "maps", "barred", "fds", "disk", "records", "live", "ratio",
		"unlinked", "pinned", "moved", "backlog", "compact", "GCs", "exp")
	first, err := s.take()
	for last := first; err == nil && s.sleep(time.Until(last.at.Add(s.sample))); {
		var here sample
		if here, err = s.take(); err == nil {
			here.print(out, first, last)
			list, last = append(list, here), here
		}
	}
	return list, err
}

// print prints a line, with rates since the sample before and sizes in MiB.
func (s *sample) print(out io.Writer, first, before sample) {
	p, c, took := s.process, s.stats.Compaction, s.at.Sub(before.at).Seconds()
	fmt.Fprintf(out, "%8.0f %9.0f %9.0f %8d %8d %6d %6d %6d %6d %6d %8d %8d %8d %6.2f %8d %8d %8d %8d %8.1f %4d %4d\n",
		s.at.Sub(first.at).Seconds(), float64(s.writes-before.writes)/took, float64(s.reads-before.reads)/took,
		p.Anon>>20, p.File>>20, p.Shmem>>20, p.Heap>>20, p.Maps, p.Barred, p.Descriptors,
		s.space.Sum()>>20, s.stats.LiveBytes>>20, s.live>>20, float64(s.space.Sum())/float64(s.live), s.space.Unlinked>>20,
		s.stats.Pinned.Bytes>>20, s.stats.Pinned.Moved>>20, c.Backlog>>20,
		float64(c.BytesRead-before.stats.Compaction.BytesRead)/took/(1<<20),
		s.stats.Pinned.Collections, s.stats.Pinned.Revoked)
}

// judged is what has to stay as it is.
var judged = []struct {
	name  string
	of    func(s *sample) float64
	slack float64 // what more there may always be
}{
	{"anonymous memory, MiB", func(s *sample) float64 { return float64(s.process.Anon >> 20) }, 0},
	{"mappings", func(s *sample) float64 { return float64(s.process.Maps) }, 16},
	{"descriptors", func(s *sample) float64 { return float64(s.process.Descriptors) }, 16},
	{"disk, MiB", func(s *sample) float64 { return float64(s.space.Sum() >> 20) }, 0},
}

// flat compares the last third of the samples with the one before, and reports
// whether nothing has grown by more than a tenth.
func flat(out io.Writer, list []sample) bool {
	const grows = 1.1
	n := len(list) / 3
	if n == 0 {
		fmt.Fprintln(out, "too few samples to tell whether anything grows")
		return false
	}
	fmt.Fprintf(out, "\n%-22s %12s %12s %7s\n", "mean of the samples", "second third", "last third", "ratio")
	ok := true
	for _, j := range judged {
		mean := func(part []sample) (sum float64) {
			for i := range part {
				sum += j.of(&part[i])
			}
			return sum / float64(len(part))
		}
		second, last := mean(list[len(list)-2*n:len(list)-n]), mean(list[len(list)-n:])
		verdict := "flat"
		if last > max(grows*second, second+j.slack) {
			verdict, ok = "GROWS", false
		}
		fmt.Fprintf(out, "%-22s %12.0f %12.0f %7.2f %s\n", j.name, second, last, last/second, verdict)
	}
	return ok
}
