package cli

import (
	"fmt"

	"github.com/crowfly/crowfly/db"
)

// versionWidth is how long a version is in a store of up to 16 million puts.
const versionWidth = len("0123456789abcdef-ffffff")

type lsCmd struct {
	Dir    string `arg:"" help:"Store directory."`
	Prefix string `arg:"" optional:"" help:"List only keys that begin with this."`
	Long   bool   `short:"l" help:"Print the size, the modification time and the version before each key."`
	JSON   bool   `name:"json" help:"Print an object a line."`
}

// Help implements kong.HelpProvider.
func (lsCmd) Help() string {
	return `Examples:

  crowfly ls data
  crowfly ls data photos/
  crowfly ls -l data photos/`
}

func (c *lsCmd) Run(e *env) (err error) {
	store, err := openReader(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	snap, err := store.Snapshot()
	if err != nil {
		return err
	}
	defer closeAfter(snap, &err)

	for key, entry := range snap.Prefix([]byte(c.Prefix), nil) {
		if err := entry.Err(); err != nil {
			return err
		}
		if err := c.print(e, string(key), &entry); err != nil {
			return err
		}
	}
	return nil
}

func (c *lsCmd) print(e *env, key string, entry *db.Entry) error {
	if !c.JSON && !c.Long {
		_, err := fmt.Fprintln(e.out, e.shown(key))
		return err
	}
	meta, err := entry.Metadata()
	if err != nil {
		return err
	}
	if c.JSON {
		return e.json(newJSONValue(key, entry.Size(), entry.Version(), &meta))
	}
	_, err = fmt.Fprintf(e.out, "%13d  %-20s  %-*s  %s\n",
		entry.Size(), formatTime(meta.ModTime), versionWidth, entry.Version(), e.shown(key))
	return err
}
