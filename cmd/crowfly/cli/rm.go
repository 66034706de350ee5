package cli

import (
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/db"
)

type rmCmd struct {
	Dir  string   `arg:"" help:"Store directory."`
	Keys []keyArg `arg:"" name:"key" help:"Keys to remove, all in one step."`
	JSON bool     `name:"json" help:"Print what became of each key as JSON."`
}

// Help implements kong.HelpProvider.
func (rmCmd) Help() string {
	return `Examples:

  crowfly rm data photos/1.jpg photos/2.jpg

All keys are removed in one step. If one was not found the others are removed all
the same, and the exit code is 3.`
}

// jsonRemoval is what became of one key.
type jsonRemoval struct {
	jsonKey
	Removed bool `json:"removed"`
}

func (c *rmCmd) Run(e *env) (err error) {
	store, err := openExisting(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	var b db.Batch
	for _, key := range c.Keys {
		b.Delete([]byte(key))
	}
	if err := store.Apply(&b, nil); err != nil {
		return err
	}
	return c.report(e, &b)
}

// report tells what became of each key. The others are gone although one was
// not found.
func (c *rmCmd) report(e *env, b *db.Batch) error {
	var missing []error
	for i, key := range c.Keys {
		existed := b.Result(i).Existed
		if !existed {
			missing = append(missing, fmt.Errorf("rm %q: %w", key, db.ErrNotFound))
		}
		if c.JSON {
			if err := e.json(jsonRemoval{newJSONKey(string(key)), existed}); err != nil {
				return err
			}
		}
	}
	return errors.Join(missing...)
}
