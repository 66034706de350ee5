package main

import (
	"fmt"
	"io"
	"time"
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
