package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

// putAhead is how much of an input of unknown size is read before the store is
// opened, so that a slow one that is small keeps no other writer out.
const putAhead = 1 << 20

type putCmd struct {
	Dir         string      `arg:"" help:"Store directory, created if it does not exist."`
	Key         keyArg      `arg:"" help:"Key to store under."`
	File        string      `arg:"" default:"-" help:"File to store; - is standard input, and the default."`
	ContentType string      `help:"Content type, by default from the extension of the file or the key."`
	IfAbsent    bool        `xor:"condition" help:"Store only if the key has no value."`
	IfMatch     *versionArg `xor:"condition" placeholder:"VERSION" help:"Store only if the key has this version of its value, which head and ls -l print."`
	JSON        bool        `name:"json" help:"Print what was stored as JSON."`
}

func (c *putCmd) Run(e *env) error {
	ctx, stop := interruptible()
	defer stop()
	if c.File == "-" {
		return c.put(ctx, e, e.in)
	}
	f, err := os.Open(c.File)
	if err != nil {
		return c.failed(err)
	}
	defer f.Close()
	return c.put(ctx, e, f)
}

func (c *putCmd) put(ctx context.Context, e *env, r io.Reader) (err error) {
	in, err := newInput(ctx, r)
	if err == nil {
		err = in.readAhead(putAhead)
	}
	if err == nil && in.size > db.MaxValue {
		err = db.ErrValueTooLarge
	}
	if err != nil {
		return c.failed(err)
	}
	store, err := openWriter(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	if err := c.checkEarly(store); err != nil {
		return c.failed(err)
	}
	return c.store(ctx, e, store, in)
}

func (c *putCmd) store(ctx context.Context, e *env, store *db.DB, in *input) error {
	meta := &db.Metadata{
		ModTime:     in.modTime,
		ContentType: cmp.Or(c.ContentType, server.ContentType(c.File), server.ContentType(string(c.Key))),
	}
	m := newMeter(e.err, in.size)
	o := &db.PutOptions{Metadata: meta, IfAbsent: c.IfAbsent, IfMatch: (*db.Version)(c.IfMatch)}
	result, err := store.PutReader(ctx, []byte(c.Key), &tap{r: in, passed: m.passed}, in.size, o)
	m.bar.clear()
	switch {
	case errors.Is(err, db.ErrSize):
		return fmt.Errorf("%w: %s changed while it was read", err, c.File)
	case err != nil || !c.JSON:
		return err
	}
	return e.json(newJSONValue(string(c.Key), m.done, result.Version, meta))
}

// checkEarly judges the condition before the value is read. Nobody else writes
// to the store meanwhile.
func (c *putCmd) checkEarly(store *db.DB) error {
	if !c.IfAbsent && c.IfMatch == nil {
		return nil
	}
	present, err := presentVersion(store, []byte(c.Key))
	if err != nil {
		return err
	}
	if c.IfAbsent && present != (db.Version{}) || c.IfMatch != nil && present != db.Version(*c.IfMatch) {
		return db.ErrPrecondition
	}
	return nil
}

func (c *putCmd) failed(err error) error { return fmt.Errorf("put %q: %w", c.Key, err) }
