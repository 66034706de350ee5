package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/db/check"
)

type verifyCmd struct {
	Dir  string `arg:"" help:"Store directory."`
	JSON bool   `name:"json" help:"Print what was found as JSON."`
}

// Help implements kong.HelpProvider.
func (verifyCmd) Help() string {
	return `Examples:

  crowfly verify data                       also beside a server`
}

func (c *verifyCmd) Run(e *env) error {
	ctx, stop := interruptible()
	defer stop()
	m := newMeter(e.err, 0)
	report, err := c.verify(ctx, m.verified)
	m.bar.clear()
	if err != nil {
		return err
	}
	p := damagePrinter{e, c.JSON}
	if err := p.damage(report.Damage); err != nil {
		return err
	}
	e.talk("verified %s, %s, %s: %d damaged", count(report.Files, "file"), count(report.Records, "record"), formatBytes(report.Bytes), len(report.Damage))
	if c.JSON {
		err = e.json(jsonVerified{"summary", report.Files, report.Records, report.Bytes, len(report.Damage)})
	}
	if err == nil && len(report.Damage) > 0 {
		err = fmt.Errorf("%s is damaged; `crowfly repair` keeps what can be kept", c.Dir)
	}
	return err
}

// verify goes through an open store, or through the files of one that refuses
// to be opened.
func (c *verifyCmd) verify(ctx context.Context, progress func(check.Progress)) (report check.VerifyReport, err error) {
	store, refused := openReader(c.Dir)
	if refused == nil {
		defer closeAfter(store, &err)
		report, refused = store.Verify(ctx, progress)
	}
	damage, ok := errors.AsType[*db.CorruptError](refused)
	if !ok {
		return report, refused
	}
	report, err = check.Verify(ctx, c.Dir, &check.VerifyOptions{Progress: progress})
	if err == nil && len(report.Damage) == 0 {
		report.Damage = []check.Damage{{Err: damage}}
	}
	return report, err
}

// jsonVerified is the last object of a verification.
type jsonVerified struct {
	Event   string `json:"event"` // summary
	Files   int    `json:"files"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"`
	Damage  int    `json:"damage"`
}

// jsonDamage is one thing that verify or repair found.
type jsonDamage struct {
	Event  string `json:"event"` // damage
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	End    int64  `json:"end,omitempty"`
	jsonKey
	Reason string `json:"reason"`
}

// damagePrinter prints one line for everything that is damaged.
type damagePrinter struct {
	env  *env
	json bool
}

func (p damagePrinter) damage(list []check.Damage) error {
	for _, d := range list {
		if err := p.one(d); err != nil {
			return err
		}
	}
	return nil
}

func (p damagePrinter) one(d check.Damage) error {
	if p.json {
		return p.env.json(jsonDamage{"damage", d.Err.Path, d.Err.Offset, d.To, newJSONKey(string(d.Key)), d.Err.Reason})
	}
	line := fmt.Sprintf("%s: offset %d", d.Err.Path, d.Err.Offset)
	if d.To > 0 {
		line += fmt.Sprintf(" to %d", d.To)
	}
	line += ": " + d.Err.Reason
	if d.Key != nil {
		line += ", key " + strconv.Quote(string(d.Key))
	}
	_, err := fmt.Fprintln(p.env.out, line)
	return err
}
