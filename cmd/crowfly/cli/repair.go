package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/db/check"
)

type repairCmd struct {
	Dir    string `arg:"" help:"Store directory, which nobody has open for writing."`
	DryRun bool   `help:"Only print what would be done."`
	JSON   bool   `name:"json" help:"Print what was done as JSON."`
}

// Help implements kong.HelpProvider.
func (repairCmd) Help() string {
	return `Examples:

  crowfly repair data --dry-run             what a repair would do
  crowfly repair data`
}

func (c *repairCmd) Run(e *env) error {
	ctx, stop := interruptible()
	defer stop()
	m := newMeter(e.err, 0)
	report, err := check.Repair(ctx, c.Dir, &check.RepairOptions{DryRun: c.DryRun, Progress: m.verified})
	m.bar.clear()
	if errors.Is(err, db.ErrLocked) {
		return inUse(c.Dir, err, "stop `crowfly serve` first")
	}
	if err != nil {
		return err
	}
	p := repairPrinter{damagePrinter{e, c.JSON}}
	if err := p.damage(report.Damage); err != nil {
		return err
	}
	if err := p.losses(&report); err != nil {
		return err
	}
	c.summary(e, &report)
	if c.JSON {
		return e.json(newJSONRepaired(&report))
	}
	return nil
}

// summary tells a person what became of the store.
func (c *repairCmd) summary(e *env, r *check.RepairReport) {
	if !r.Changed {
		e.talk("%s is whole, nothing was changed", c.Dir)
		return
	}
	done := "repaired"
	if c.DryRun {
		done = "nothing was changed; a repair would have done this:"
	}
	s := newJSONRepaired(r)
	e.talk("%s %s: %d damaged, %s lost, %s with an older version, %s unknown, %s copied, %s moved to %s",
		done, c.Dir, s.Damage, count(s.Lost, "key"), count(s.Older, "key"), count(s.Unknown, "part"), count(s.Copied, "record"), count(s.Trashed, "file"), filepath.Join(c.Dir, "trash"))
	if r.ManifestLost {
		e.talk("the list of segments was lost: values that were deleted may have come back")
	}
	if len(r.Unknown) > 0 {
		e.talk("keys whose newest version lay in an unknown stretch have an older value now, or none")
	}
}

// jsonRepaired is the last object of a repair.
type jsonRepaired struct {
	Event        string `json:"event"` // summary
	Changed      bool   `json:"changed"`
	ManifestLost bool   `json:"manifest_lost"`
	Damage       int    `json:"damage"`
	Lost         int    `json:"lost"`
	Older        int    `json:"older"`
	Unknown      int    `json:"unknown"`
	Copied       uint64 `json:"copied"`
	Trashed      int    `json:"trashed"`
}

func newJSONRepaired(r *check.RepairReport) jsonRepaired {
	s := jsonRepaired{
		Event: "summary", Changed: r.Changed, ManifestLost: r.ManifestLost,
		Damage: len(r.Damage), Unknown: len(r.Unknown), Copied: r.Copied, Trashed: len(r.Trashed),
	}
	for _, l := range r.Lost {
		if l.OlderKept {
			s.Older++
		} else {
			s.Lost++
		}
	}
	return s
}

// jsonLoss is something that a repair could not save, or has moved.
type jsonLoss struct {
	Event string `json:"event"` // lost, older, unknown or trashed
	jsonKey
	File   string `json:"file"`
	Offset int64  `json:"offset,omitempty"`
	End    int64  `json:"end,omitempty"`
}

// repairPrinter prints one line for every key that is lost, every stretch that
// is unknown and every file that was moved.
type repairPrinter struct{ damagePrinter }

func (p repairPrinter) losses(r *check.RepairReport) error {
	for _, l := range r.Lost {
		event, what := "lost", "lost"
		if l.OlderKept {
			event, what = "older", "older version kept"
		}
		x := jsonLoss{event, newJSONKey(string(l.Key)), l.Path, l.Offset, 0}
		if err := p.loss(x, fmt.Sprintf("%s: %q", what, l.Key)); err != nil {
			return err
		}
	}
	for _, u := range r.Unknown {
		line := fmt.Sprintf("unknown keys: %s between offset %d and %d", u.Path, u.From, u.To)
		if u.To == 0 {
			line = fmt.Sprintf("unknown keys: all of %s", u.Path)
		}
		if err := p.loss(jsonLoss{Event: "unknown", File: u.Path, Offset: u.From, End: u.To}, line); err != nil {
			return err
		}
	}
	for _, path := range r.Trashed {
		if err := p.loss(jsonLoss{Event: "trashed", File: path}, "trash: "+path); err != nil {
			return err
		}
	}
	return nil
}

func (p repairPrinter) loss(x jsonLoss, line string) error {
	if p.json {
		return p.env.json(x)
	}
	_, err := fmt.Fprintln(p.env.out, line)
	return err
}
