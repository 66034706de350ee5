package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/crowfly/crowfly/db/check"
)

// progress is a line on a terminal that is drawn over and over.
type progress struct {
	w     io.Writer
	on    bool
	drawn time.Time // zero if the line is empty
}

const (
	progressEvery = 200 * time.Millisecond
	clearLine     = "\r\x1b[K"
)

// draw shows the line, unless it did a moment ago.
func (p *progress) draw(line func() string) {
	if !p.on || time.Since(p.drawn) < progressEvery {
		return
	}
	p.drawn = time.Now()
	fmt.Fprint(p.w, clearLine, line())
}

// clear makes room for other output.
func (p *progress) clear() {
	if p.drawn.IsZero() {
		return
	}
	p.drawn = time.Time{}
	fmt.Fprint(p.w, clearLine)
}

// meter shows how much of one value has passed.
type meter struct {
	bar   progress
	start time.Time
	total int64 // -1 if unknown
	done  int64
}

func newMeter(w io.Writer, total int64) *meter {
	return &meter{bar: progress{w: w, on: isTerminal(w)}, start: time.Now(), total: total}
}

// passed counts n more bytes.
func (m *meter) passed(n int64) {
	m.done += n
	m.bar.draw(m.line)
}

// verified shows how far a verification has come.
func (m *meter) verified(p check.Progress) { m.at(p.Done, p.Total) }

// at shows how far something has come.
func (m *meter) at(done, total int64) {
	m.done, m.total = done, total
	m.bar.draw(m.line)
}

func (m *meter) line() string { return m.lineAfter(time.Since(m.start)) }

func (m *meter) lineAfter(took time.Duration) string {
	const width = 24
	speed := formatBytes(perSecond(m.done, took))
	if m.total <= 0 {
		return fmt.Sprintf("%s, %s/s", formatBytes(m.done), speed)
	}
	share := min(float64(m.done)/float64(m.total), 1)
	filled := strings.Repeat("=", int(share*width))
	return fmt.Sprintf("[%-*s] %3.0f%%  %s of %s, %s/s", width, filled, share*100,
		formatBytes(m.done), formatBytes(m.total), speed)
}

// perSecond is the speed of n bytes.
func perSecond(n int64, took time.Duration) int64 {
	return int64(float64(n) / max(took.Seconds(), 1e-3))
}
