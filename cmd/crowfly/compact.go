package main

import (
	"errors"

	"github.com/crowfly/crowfly/db"
)

type compactCmd struct {
	Dir  string `arg:"" help:"Store directory."`
	JSON bool   `name:"json" help:"Print what came of it as JSON."`
}

// jsonCompacted is what a compaction has done.
type jsonCompacted struct {
	Before int64 `json:"bytes_before"`
	After  int64 `json:"bytes_after"`
	Live   int64 `json:"live_bytes"`
	Read   int64 `json:"bytes_read"`
	Copied int64 `json:"bytes_copied"`
}

func (c *compactCmd) Run(e *env) (err error) {
	ctx, stop := interruptible()
	defer stop()
	store, err := openExisting(c.Dir)
	if errors.Is(err, db.ErrLocked) {
		return errors.Join(err, errors.New("whoever has it open gives space back by itself"))
	}
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	before := store.Stats()
	m := newMeter(e.err, 0)
	err = store.Compact(ctx, func(p db.CompactProgress) { m.at(p.Done, p.Total) })
	m.bar.clear()
	if err != nil {
		return err
	}
	after := store.Stats()
	done := jsonCompacted{
		Before: totalBytes(before), After: totalBytes(after), Live: after.LiveBytes,
		Read: after.Compaction.BytesRead, Copied: after.Compaction.BytesWritten,
	}
	e.talk("%s, %s before", formatBytes(done.After), formatBytes(done.Before))
	if c.JSON {
		return e.json(done)
	}
	return nil
}
