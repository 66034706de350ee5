package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
)

type exportCmd struct {
	Dir     string `arg:"" help:"Store directory."`
	Path    string `arg:"" help:"Directory to write the files to, created if it does not exist."`
	Force   bool   `help:"Replace files that exist."`
	Verbose bool   `short:"v" help:"Print each key once its file is written."`
	JSON    bool   `name:"json" help:"Print what happened as JSON."`
}

// Help implements kong.HelpProvider.
func (exportCmd) Help() string {
	return `Examples:

  crowfly export data tree                  a file for each key

The date of each file is that of its value. Other metadata, such as content types,
has no place in a file: cp keeps it.`
}

func (c *exportCmd) Run(e *env) (err error) {
	store, err := openReader(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	if err := c.notIntoStore(); err != nil {
		return err
	}
	snap, err := store.Snapshot()
	if err != nil {
		return err
	}
	defer closeAfter(snap, &err)

	ctx, stop := interruptible()
	defer stop()
	dir, err := os.Stat(c.Dir)
	if err != nil {
		return err
	}
	x := &exporter{snap: snap, force: c.Force, store: dir, report: newReport(e, "file", c.Verbose, c.JSON)}
	err = x.run(ctx, c.Path)
	if rerr := x.report.finish("exported"); err == nil {
		err = rerr
	}
	return err
}

// notIntoStore keeps an export from writing among the files of the store.
func (c *exportCmd) notIntoStore() error {
	store, err := os.Stat(c.Dir)
	if err != nil {
		return err
	}
	target, err := os.Stat(c.Path)
	if err == nil && os.SameFile(store, target) {
		return fmt.Errorf("%s is the store itself", c.Path)
	}
	return nil
}

// exporter writes the values of one snapshot in two passes: the first one
// refuses what can't be written, the second one writes.
type exporter struct {
	snap   *db.Snapshot
	force  bool
	store  fs.FileInfo // the directory of the store, which is not to be written to
	report *report
	made   string // the directory made last, below the root
}

func (x *exporter) run(ctx context.Context, dir string) error {
	if err := x.checkAll(dir); err != nil {
		return err
	}
	if refused := len(x.report.failed); refused > 0 {
		return fmt.Errorf("nothing was written: %s can't be the name of a file below %s", count(refused, "key"), dir)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := x.writeAll(ctx, root); err != nil {
		return err
	}
	if failed := len(x.report.failed); failed > 0 {
		return fmt.Errorf("not exported: %s", count(failed, "key"))
	}
	return nil
}

// checkAll is the first pass. The directory may not exist yet.
func (x *exporter) checkAll(dir string) error {
	root, err := os.OpenRoot(dir)
	switch {
	case err == nil:
		defer root.Close()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var above ancestors
	for k, entry := range x.snap.All() {
		if err := entry.Err(); err != nil {
			return err
		}
		key := string(k)
		if err := checkName(key); err != nil {
			x.report.fail(key, err.Error())
			continue
		}
		if parent, ok := above.next(key); ok {
			x.report.fail(parent, fmt.Sprintf("is also a directory, of %q", key))
		}
		if root == nil {
			continue
		}
		if parent, err := root.Stat(path.Dir(key)); err == nil && os.SameFile(parent, x.store) {
			x.report.fail(key, "would be a file of the store itself")
			continue
		}
		if err := x.checkFile(root, key); err != nil {
			x.report.fail(key, reason(err))
		}
	}
	return nil
}

// checkFile refuses a file that is there already, or can't be.
func (x *exporter) checkFile(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("is a directory")
	case !x.force:
		return errors.New("the file exists, --force replaces it")
	}
	return nil
}

// writeAll is the second pass.
func (x *exporter) writeAll(ctx context.Context, root *os.Root) error {
	for k, entry := range x.snap.All() {
		if err := entry.Err(); err != nil {
			return err
		}
		key := string(k)
		if err := x.write(ctx, root, key); err != nil {
			if ctx.Err() != nil {
				return err
			}
			x.report.fail(key, reason(err))
			continue
		}
		if err := x.report.done("written", key, entry.Size()); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) write(ctx context.Context, root *os.Root, name string) error {
	v, err := x.snap.Value([]byte(name))
	if err != nil {
		return err
	}
	defer v.Close()
	if dir := path.Dir(name); dir != x.made {
		if err := root.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
			return err
		}
		x.made = dir
	}
	create := createFile
	if x.force {
		create = replaceFile
	}
	return create(root, name, 0o666, v.ModTime(), func(w io.Writer) error {
		return writeValue(ctx, w, v, span{0, v.Size()}, x.report.passed)
	})
}
