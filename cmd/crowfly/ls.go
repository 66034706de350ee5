package main

import (
	"fmt"
	"time"

	"github.com/crowfly/crowfly/db"
)

type lsCmd struct {
	Dir    string `arg:"" help:"Store directory."`
	Prefix string `arg:"" optional:"" help:"List only keys that begin with this."`
	Long   bool   `short:"l" help:"Print the size and the modification time before each key."`
	JSON   bool   `name:"json" help:"Print an object a line."`
}

// jsonValue describes a value.
type jsonValue struct {
	jsonKey
	Size        int64     `json:"size"`
	Version     string    `json:"version"`
	ContentType string    `json:"content_type,omitempty"`
	Modified    time.Time `json:"modified,omitzero"`
}

func newJSONValue(key string, size int64, version db.Version, meta *db.Metadata) jsonValue {
	return jsonValue{
		jsonKey:     newJSONKey(key),
		Size:        size,
		Version:     version.String(),
		ContentType: meta.ContentType,
		Modified:    meta.ModTime,
	}
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
	_, err = fmt.Fprintf(e.out, "%12d  %-20s  %s\n", entry.Size(), formatTime(meta.ModTime), e.shown(key))
	return err
}
