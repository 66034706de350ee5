package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

// putAhead is how much of an input of unknown size is read before the store is
// opened, so that a slow one that is small keeps no other writer out.
const putAhead = 1 << 20

type putCmd struct {
	Dir         string      `arg:"" help:"Store directory, created if it does not exist."`
	Files       []string    `arg:"" name:"file" help:"Files to store, each under its name without the directory, or - for standard input, which needs --key."`
	Key         *keyArg     `placeholder:"KEY" help:"Key to store the one file under."`
	ContentType string      `help:"Content type, by default from the extension of the file or the key."`
	IfAbsent    bool        `xor:"condition" help:"Store only if the key has no value."`
	IfMatch     *versionArg `xor:"condition" placeholder:"VERSION" help:"Store only if the key has this version of its value, which head and ls -l print. One file only."`
	JSON        bool        `name:"json" help:"Print what was stored as JSON."`
}

// Help implements kong.HelpProvider.
func (putCmd) Help() string {
	return `Examples:

  crowfly put data hello.txt                        under hello.txt
  crowfly put data --key photos/1.jpg ~/dsc001.jpg  under photos/1.jpg
  crowfly put data *.jpg                            each under its name
  tar c . | crowfly put data --key backup.tar -     standard input

A file that can't be opened keeps all from being stored. Standard input that is
closed or the null device is an error, since that is what a program started by
cron gets; for an empty value give an empty file.`
}

// source is one value to store.
type source struct {
	key  string
	file string // "-" for standard input
	from io.Reader
}

func (c *putCmd) Run(e *env) (err error) {
	sources, err := c.sources()
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	for i := range sources {
		u := &sources[i]
		if u.file == "-" {
			if u.from, err = standardInput(e.in); err != nil {
				return u.failed(err)
			}
			continue
		}
		f, err := openFile(u.file)
		if err != nil {
			return u.failed(err)
		}
		defer f.Close()
		u.from = f
	}
	return c.put(ctx, e, sources)
}

// sources are what the command line asks for.
func (c *putCmd) sources() (list []source, err error) {
	if c.Key != nil && len(c.Files) > 1 {
		return nil, usageError{fmt.Errorf("--key %q is for one file, here are %d", *c.Key, len(c.Files))}
	}
	if c.IfMatch != nil && len(c.Files) > 1 {
		return nil, usageError{fmt.Errorf("--if-match is for one file, here are %d", len(c.Files))}
	}
	from := make(map[string]string)
	for _, file := range c.Files {
		key := filepath.Base(file)
		switch {
		case c.Key != nil:
			key = string(*c.Key)
		case file == "-":
			return nil, usageError{errors.New("standard input has no name: say --key KEY")}
		}
		if before, twice := from[key]; twice {
			return nil, usageError{fmt.Errorf("%s and %s would both be stored as %q", before, file, key)}
		}
		from[key] = file
		list = append(list, source{key: key, file: file})
	}
	return list, nil
}

// openFile opens a file to be stored.
func openFile(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		if err == nil {
			err = fmt.Errorf("%s is a directory; crowfly import stores a whole tree", name)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// standardInput refuses the null device. A program that was started with its
// standard input closed has it there too: the runtime opens it.
func standardInput(in io.Reader) (io.Reader, error) {
	f, ok := in.(*os.File)
	if !ok {
		return in, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if null, err := os.Stat(os.DevNull); err == nil && os.SameFile(info, null) {
		return nil, fmt.Errorf("standard input is closed or %s", os.DevNull)
	}
	return in, nil
}

// put reads what is small of the first value before it opens the store, so that
// a slow source keeps no other writer out.
func (c *putCmd) put(ctx context.Context, e *env, sources []source) (err error) {
	first, err := sources[0].begin(ctx)
	if err != nil {
		return err
	}
	store, err := openWriter(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)
	for i := range sources {
		u, in := &sources[i], first
		if i > 0 {
			if in, err = u.begin(ctx); err != nil {
				return err
			}
		}
		if err := c.checkEarly(store, u); err != nil {
			return u.failed(err)
		}
		if err := c.store(ctx, e, store, u, in); err != nil {
			return err
		}
	}
	return nil
}

// begin reads the beginning of a value.
func (u *source) begin(ctx context.Context) (*input, error) {
	in, err := newInput(ctx, u.from)
	if err == nil {
		err = in.readAhead(putAhead)
	}
	if err == nil {
		err = checkSize(in.size)
	}
	if err != nil {
		return nil, u.failed(err)
	}
	return in, nil
}

func (u *source) failed(err error) error { return fmt.Errorf("put %q: %w", u.key, err) }

func (c *putCmd) store(ctx context.Context, e *env, store *db.DB, u *source, in *input) error {
	meta := &db.Metadata{
		ModTime:     in.modTime,
		ContentType: cmp.Or(c.ContentType, server.ContentType(u.file), server.ContentType(u.key)),
	}
	m := newMeter(e.err, in.size)
	o := &db.PutOptions{Metadata: meta, IfAbsent: c.IfAbsent, IfMatch: (*db.Version)(c.IfMatch)}
	result, err := store.PutReader(ctx, []byte(u.key), &tap{r: in, passed: m.passed}, in.size, o)
	m.bar.clear()
	switch {
	case errors.Is(err, db.ErrSize):
		return fmt.Errorf("%w: %s changed while it was read", err, u.file)
	case err != nil || !c.JSON:
		return err
	}
	return e.json(newJSONValue(u.key, m.done, result.Version, meta))
}

// checkEarly judges the condition before the value is read. Nobody else writes
// to the store meanwhile.
func (c *putCmd) checkEarly(store *db.DB, u *source) error {
	if !c.IfAbsent && c.IfMatch == nil {
		return nil
	}
	present, err := presentVersion(store, []byte(u.key))
	if err != nil {
		return err
	}
	if c.IfAbsent && present != (db.Version{}) || c.IfMatch != nil && present != db.Version(*c.IfMatch) {
		return db.ErrPrecondition
	}
	return nil
}
