package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/crowfly/crowfly/db"
)

type getCmd struct {
	Dir    string    `arg:"" help:"Store directory."`
	Key    keyArg    `arg:"" help:"Key to get."`
	Output string    `short:"o" default:"-" placeholder:"FILE" help:"File to write; - is standard output, and the default."`
	Range  *rangeArg `placeholder:"FIRST-LAST" help:"Bytes to get, as in HTTP: FIRST-LAST, FIRST- or, with --range=-N, the last N."`
}

// Help implements kong.HelpProvider.
func (getCmd) Help() string {
	return `Examples:

  crowfly get data photos/1.jpg > 1.jpg
  crowfly get data photos/1.jpg -o 1.jpg
  crowfly get data film.mp4 --range 0-1023`
}

func (c *getCmd) Run(e *env) (err error) {
	store, err := openReader(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	v, err := store.Value([]byte(c.Key))
	if err != nil {
		return err
	}
	defer closeAfter(v, &err)

	part, err := c.Range.of(v.Size())
	if err != nil {
		return fmt.Errorf("get %q: %w", c.Key, err)
	}
	return c.write(e, v, part)
}

func (c *getCmd) write(e *env, v *db.Value, part span) error {
	m := newMeter(e.err, part.n)
	defer m.bar.clear()
	if c.Output == "-" {
		m.bar.on = m.bar.on && !e.terminal
		return writeValue(context.Background(), e.out, v, part, m.passed)
	}
	ctx, stop := interruptible()
	defer stop()
	return writeOutput(c.Output, v.ModTime(), func(w io.Writer) error {
		return writeValue(ctx, w, v, part, m.passed)
	})
}
