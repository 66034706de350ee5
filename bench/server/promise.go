package main

import (
	"fmt"

	"github.com/crowfly/crowfly/bench/measure"
)

// What is promised of crowfly, as ratios.
const (
	mostOfNginx = 0.7 // processor time for a small object, beside one worker
	mostOfLoop  = 1.5 // the same, beside the bare loop
	mostOfP99   = 1.0 // beside nginx with as many workers as are best
	mostPerGB   = 1.0 // processor time for a large object, beside one worker
	rateSmall   = 1.1 // requests a second up to 4 KiB, beside nginx at its best
	rateMedium  = 1.2 // and above

	small     = 4 << 10
	medium    = 64 << 10
	manyConns = 64 // from how many connections on the p99 is promised
)

// promise is one ratio.
type promise struct {
	text    string
	ratio   float64
	limit   float64
	atLeast bool // else at most
}

func (p promise) kept() bool {
	if p.atLeast {
		return p.ratio >= p.limit
	}
	return p.ratio <= p.limit
}

func (p promise) String() string {
	word, bound := "kept", "at most"
	if !p.kept() {
		word = "MISSED"
	}
	if p.atLeast {
		bound = "at least"
	}
	return fmt.Sprintf("%-6s  %s: %.2f, %s %.1f", word, p.text, p.ratio, bound, p.limit)
}

// promises judges all that was measured.
func promises(cells []*cell) (all []promise) {
	for _, c := range cells {
		for _, p := range c.promises() {
			p.text = fmt.Sprintf("%s, %d connections, %s", bytesOf(c.size), c.conns, p.text)
			all = append(all, p)
		}
	}
	return all
}

func (c *cell) promises() (all []promise) {
	if c.size <= medium {
		all = append(all, c.speed()...)
	}
	for _, own := range c.lines {
		if own.name != crowfly {
			continue
		}
		where := ""
		if len(own.cpus) > 0 {
			where = " on 1 CPU"
		}
		nginx := own.ratio(c.line(nginx1, own), outcome.cpu)
		if c.size > medium {
			all = append(all, promise{text: "CPU for a GB" + where + " beside " + nginx1, ratio: nginx, limit: mostPerGB})
			continue
		}
		all = append(all,
			promise{text: "CPU" + where + " beside " + nginx1, ratio: nginx, limit: mostOfNginx},
			promise{text: "CPU" + where + " beside " + bareLoop, ratio: own.ratio(c.line(bareLoop, own), outcome.cpu), limit: mostOfLoop})
	}
	return all
}

// speed is what concerns servers that have all processors.
func (c *cell) speed() (all []promise) {
	own := c.line(crowfly, nil)
	best := c.line(nginx1, nil)
	if other := c.line(nginx2, nil); other.median(outcome.rate) > best.median(outcome.rate) {
		best = other
	}
	rate := rateMedium
	if c.size <= small {
		rate = rateSmall
	}
	all = append(all, promise{text: "requests a second beside " + best.name, ratio: own.ratio(best, outcome.rate), limit: rate, atLeast: true})
	if c.conns >= manyConns {
		all = append(all, promise{text: "p99 beside " + best.name, ratio: own.ratio(best, outcome.p99), limit: mostOfP99})
	}
	return all
}

// line is that of a server with as many processors as another one, or all.
func (c *cell) line(name string, like *line) *line {
	for _, l := range c.lines {
		if l.name == name && (like == nil && len(l.cpus) == 0 || like != nil && len(l.cpus) == len(like.cpus)) {
			return l
		}
	}
	return nil
}

// ratio is the median of those in each round, since what else the machine does
// changes from one to the next.
func (l *line) ratio(o *line, of func(o outcome) float64) float64 {
	var each []float64
	for i := range l.rounds {
		each = append(each, of(l.rounds[i])/of(o.rounds[i]))
	}
	return measure.Median(each)
}
