package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
)

// Limits of one batch of an import. A file larger than a batch goes alone.
const (
	batchBytes = 8 << 20
	batchFiles = 256
)

// dirChunk is how many names of a directory are held at a time.
const dirChunk = 1024

type importCmd struct {
	Dir     string `arg:"" help:"Store directory, created if it does not exist."`
	Path    string `arg:"" help:"Directory, whose files get their slash-separated paths below it as keys, or a single file."`
	Verbose bool   `short:"v" help:"Print each key once its value is safe on disk."`
	JSON    bool   `name:"json" help:"Print what happened as JSON."`
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

	im := &importer{store: store, report: newReport(e, c.Verbose, c.JSON)}
	if im.storeDir, err = os.Stat(c.Dir); err != nil {
		return err
	}
	err = im.run(c.Path)
	if rerr := im.report.finish("imported"); err == nil {
		err = rerr
	}
	if failed := len(im.report.failed); err == nil && failed > 0 {
		err = fmt.Errorf("%d files were not imported", failed)
	}
	return err
}

// importer stores files in batches. What it holds at a time is one batch, one
// value and the open directories on the way to it.
type importer struct {
	store    *db.DB
	storeDir fs.FileInfo
	report   *report
	root     *os.Root // of the tree, so that no race with a symbolic link leads out of it

	batch   db.Batch
	bytes   int // of keys and values in the batch
	pending []stored
}

// stored is a file in the batch.
type stored struct {
	key  string
	size int64
}

func (im *importer) run(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		err = im.tree(name)
	default:
		err = im.single(name)
	}
	if err != nil {
		return err
	}
	return im.flush()
}

func (im *importer) tree(dir string) (err error) {
	if im.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	defer im.root.Close()
	return im.dir(".")
}

func (im *importer) single(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return im.file(filepath.Base(name), f)
}

// dir imports a directory in the order in which the system lists it, so that
// one of any size takes no memory to speak of.
func (im *importer) dir(name string) error {
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
			if err := im.entry(path.Join(name, entry.Name()), entry.Type()); err != nil {
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

func (im *importer) entry(name string, mode fs.FileMode) error {
	switch {
	case mode.IsDir():
		return im.dir(name)
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
	return im.file(name, f)
}

// file adds one file to the batch. A file that can't be stored keeps no other
// from it: only an error of the store ends the import.
func (im *importer) file(key string, f *os.File) error {
	value, modTime, err := readFile(f)
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		im.report.fail(key, reason(err))
		return nil
	}
	size := len(key) + len(value)
	if im.bytes+size > batchBytes {
		if err := im.flush(); err != nil {
			return err
		}
	}
	im.batch.Put([]byte(key), value, &db.Metadata{ModTime: modTime, ContentType: contentType(key)})
	im.bytes += size
	im.pending = append(im.pending, stored{key, int64(len(value))})
	if im.bytes >= batchBytes || im.batch.Len() == batchFiles {
		return im.flush()
	}
	return nil
}

// flush stores the batch. Only then are its files reported, and at once: what
// was printed is safe on disk, whatever becomes of this process.
func (im *importer) flush() error {
	if im.batch.Len() == 0 {
		return nil
	}
	if err := im.store.Apply(&im.batch, nil); err != nil {
		return err
	}
	for _, s := range im.pending {
		if err := im.report.done("stored", s.key, s.size); err != nil {
			return err
		}
	}
	im.batch.Reset()
	im.bytes, im.pending = 0, im.pending[:0]
	return im.report.env.out.Flush()
}
