package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

type compactCmd struct {
	Store string `arg:"" help:"Store directory, or the address of a server that has the store open: http://${listen}."`
	JSON  bool   `name:"json" help:"Print what came of it as JSON."`
}

// Help implements kong.HelpProvider.
func (compactCmd) Help() string {
	return `Examples:

  crowfly compact data
  crowfly compact http://127.0.0.1:7070     a store that a server has open`
}

func (c *compactCmd) Run(e *env) error {
	ctx, stop := interruptible()
	defer stop()
	m := newMeter(e.err, 0)
	done, err := c.compact(ctx, func(p server.CompactProgress) { m.at(p.Done, p.Total) })
	m.bar.clear()
	if err != nil {
		return err
	}
	e.talk("%s, %s before", formatBytes(done.After), formatBytes(done.Before))
	if c.JSON {
		return e.json(done)
	}
	return nil
}

func (c *compactCmd) compact(ctx context.Context, progress func(server.CompactProgress)) (done server.Compacted, err error) {
	if isAddress(c.Store) {
		return askCompact(ctx, c.Store, progress)
	}
	if _, err := os.Stat(c.Store); err != nil {
		return done, err
	}
	store, err := db.Open(c.Store, nil)
	if errors.Is(err, db.ErrLocked) {
		return done, inUse(c.Store, err, fmt.Sprintf("whoever has it open gives space back by itself, and a server at once with crowfly compact http://%s", defaultListen))
	}
	if err != nil {
		return done, err
	}
	defer closeAfter(store, &err)
	return server.Compact(ctx, store, progress)
}
