package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/crowfly/crowfly/db"
)

type cpCmd struct {
	Source   string   `arg:"" name:"src-dir" help:"Store directory to copy from."`
	Target   string   `arg:"" name:"dst-dir" help:"Store directory to copy to, created if it does not exist."`
	Keys     []keyArg `arg:"" optional:"" name:"key" help:"Keys to copy, by default all."`
	Prefix   string   `help:"Copy the keys that begin with this."`
	IfAbsent bool     `help:"Skip keys that have a value in the target."`
	Verbose  bool     `short:"v" help:"Print each key once its value is safe on disk."`
	JSON     bool     `name:"json" help:"Print what happened as JSON."`
}

// Help implements kong.HelpProvider.
func (cpCmd) Help() string {
	return `Examples:

  crowfly cp data backup                    all values, also beside a server
  crowfly cp data other photos/1.jpg        one
  crowfly cp data other --prefix photos/    those below a prefix

This is how a store is backed up: a plain copy of the files of a store that is open
looks damaged.`
}

// Validate is called by kong.
func (c *cpCmd) Validate() error {
	if c.Prefix != "" && len(c.Keys) > 0 {
		return errors.New("either keys or --prefix")
	}
	return nil
}

func (c *cpCmd) Run(e *env) (err error) {
	source, err := openReader(c.Source)
	if err != nil {
		return err
	}
	defer closeAfter(source, &err)

	if sameFile(c.Source, c.Target) {
		return fmt.Errorf("%s is the source itself", c.Target)
	}
	snap, err := source.Snapshot()
	if err != nil {
		return err
	}
	defer closeAfter(snap, &err)

	target, err := openWriter(c.Target)
	if err != nil {
		return err
	}
	defer closeAfter(target, &err)

	ctx, stop := interruptible()
	defer stop()
	r := newReport(e, "value", c.Verbose, c.JSON)
	x := &copier{batcher: batcher{store: target, report: r, event: "copied"}, snap: snap, ifAbsent: c.IfAbsent}
	err = x.run(ctx, c)
	if rerr := r.finish("copied"); err == nil {
		err = rerr
	}
	if err == nil {
		err = x.failure()
	}
	return err
}

// sameFile reports whether both names lead to one file.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// copier copies values of a snapshot.
type copier struct {
	batcher
	snap     *db.Snapshot
	ifAbsent bool
	missing  int // keys that the source does not have
}

func (x *copier) run(ctx context.Context, c *cpCmd) error {
	for _, key := range c.Keys {
		if err := x.copy(ctx, string(key)); err != nil {
			return err
		}
	}
	if len(c.Keys) > 0 {
		return x.flush()
	}
	for key, entry := range x.snap.Prefix([]byte(c.Prefix), nil) {
		if err := entry.Err(); err != nil {
			return err
		}
		if err := x.copy(ctx, string(key)); err != nil {
			return err
		}
	}
	return x.flush()
}

// copy copies one value. One that can't be read keeps no other from it: only
// an error of the target ends the copy.
func (x *copier) copy(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := x.snap.Value([]byte(key))
	if err != nil {
		x.fail(key, err)
		return nil
	}
	defer v.Close()
	if x.ifAbsent {
		present, err := presentVersion(x.store, []byte(key))
		if err != nil {
			return err
		}
		if present != (db.Version{}) {
			return x.report.skip(key, "has a value in the target")
		}
	}
	meta, err := v.Metadata()
	if err != nil {
		x.fail(key, err)
		return nil
	}
	if v.Size() > batchBytes {
		return x.stream(ctx, key, v, v.Size(), &meta)
	}
	value, err := x.snap.Get(nil, []byte(key)) // a copy, for the batch outlives v
	if err != nil {
		x.fail(key, err)
		return nil
	}
	return x.add(key, value, &meta)
}

func (x *copier) fail(key string, err error) {
	if errors.Is(err, db.ErrNotFound) {
		x.missing++
	}
	x.report.fail(key, reason(err))
}

// failure sums up what was reported. It is that keys were not found if it is
// nothing else.
func (x *copier) failure() error {
	failed := len(x.report.failed)
	switch {
	case failed == 0:
		return nil
	case failed == x.missing:
		return fmt.Errorf("not copied: %s: %w", count(failed, "value"), db.ErrNotFound)
	}
	return fmt.Errorf("not copied: %s", count(failed, "value"))
}
