package cli

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

// dirChunk is how many names of a directory are held at a time.
const dirChunk = 1024

type importCmd struct {
	Dir     string `arg:"" help:"Store directory, created if it does not exist."`
	Path    string `arg:"" help:"Directory, whose files get their slash-separated paths below it as keys, or a single file."`
	Verbose bool   `short:"v" help:"Print each key once its value is safe on disk."`
	JSON    bool   `name:"json" help:"Print what happened as JSON."`
}

// Help implements kong.HelpProvider.
func (importCmd) Help() string {
	return `Examples:

  crowfly import data ~/pictures            a key for each file, its path below ~/pictures
  crowfly import data photo.jpg             a single file under its name`
}

func (c *importCmd) Run(e *env) (err error) {
	if _, err := os.Stat(c.Path); err != nil {
		return err // before a store is created for it
	}
	store, err := openWriter(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	r := newReport(e, "file", c.Verbose, c.JSON)
	im := &importer{batcher: batcher{store: store, report: r, event: "stored"}}
	if im.storeDir, err = os.Stat(c.Dir); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	err = im.run(ctx, c.Path)
	if rerr := im.report.finish("imported"); err == nil {
		err = rerr
	}
	if failed := len(im.report.failed); err == nil && failed > 0 {
		err = fmt.Errorf("not imported: %s", count(failed, "file"))
	}
	return err
}

// importer stores files. What it holds at a time is one batch, one small value
// and the open directories on the way to it.
type importer struct {
	batcher
	storeDir fs.FileInfo
	root     *os.Root // of the tree, so that no race with a symbolic link leads out of it
}

func (im *importer) run(ctx context.Context, name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		err = im.tree(ctx, name)
	default:
		err = im.single(ctx, name)
	}
	if err != nil {
		return err
	}
	return im.flush()
}

func (im *importer) tree(ctx context.Context, dir string) (err error) {
	if im.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	defer im.root.Close()
	return im.dir(ctx, ".")
}

func (im *importer) single(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return im.file(ctx, filepath.Base(name), f)
}

// dir imports a directory in the order in which the system lists it, so that
// one of any size takes no memory to speak of.
func (im *importer) dir(ctx context.Context, name string) error {
	d, err := im.root.Open(name)
	if err != nil {
		im.report.fail(name, reason(err))
		return nil
	}
	defer d.Close()
	if info, err := d.Stat(); err == nil && os.SameFile(info, im.storeDir) {
		return im.report.skip(name, "the store itself")
	}
	empty := true
	for {
		entries, err := d.ReadDir(dirChunk)
		for _, entry := range entries {
			empty = false
			if err := im.entry(ctx, path.Join(name, entry.Name()), entry.Type()); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && empty:
			return im.report.skip(name, "empty directory")
		case err == io.EOF:
			return nil
		case err != nil:
			im.report.fail(name, reason(err))
			return nil
		}
	}
}

func (im *importer) entry(ctx context.Context, name string, mode fs.FileMode) error {
	switch {
	case mode.IsDir():
		return im.dir(ctx, name)
	case mode&fs.ModeSymlink != 0:
		return im.report.skip(name, "symbolic link")
	case !mode.IsRegular():
		return im.report.skip(name, "special file")
	}
	f, err := im.root.Open(name)
	if err != nil {
		im.report.fail(name, reason(err))
		return nil
	}
	defer f.Close()
	return im.file(ctx, name, f)
}

// file stores one file. A file that can't be stored keeps no other from it:
// only an error of the store ends the import.
func (im *importer) file(ctx context.Context, key string, f *os.File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in, err := newInput(ctx, f)
	if err == nil {
		err = in.readAhead(batchBytes)
	}
	if err == nil {
		err = checkSize(in.size)
	}
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		im.report.fail(key, reason(err))
		return nil
	}
	meta := &db.Metadata{ModTime: in.modTime, ContentType: server.ContentType(key)}
	if in.size < 0 || in.size > batchBytes {
		return im.stream(ctx, key, in, in.size, meta)
	}
	value, err := in.readAll()
	if err != nil {
		im.report.fail(key, reason(err))
		return nil
	}
	return im.add(key, value, meta)
}
