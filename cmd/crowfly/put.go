package main

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/crowfly/crowfly/db"
)

type putCmd struct {
	Dir         string `arg:"" help:"Store directory, created if it does not exist."`
	Key         keyArg `arg:"" help:"Key to store under."`
	File        string `arg:"" default:"-" help:"File to store; - is standard input, and the default."`
	ContentType string `help:"Content type, by default from the extension of the file or the key."`
	JSON        bool   `name:"json" help:"Print what was stored as JSON."`
}

func (c *putCmd) Run(e *env) (err error) {
	value, modTime, err := c.read(e)
	if err != nil {
		return fmt.Errorf("put %q: %w", c.Key, err)
	}
	store, err := openWriter(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	var b db.Batch
	meta := &db.Metadata{
		ModTime:     modTime,
		ContentType: cmp.Or(c.ContentType, contentType(c.File), contentType(string(c.Key))),
	}
	b.Put([]byte(c.Key), value, meta)
	if err := store.Apply(&b, nil); err != nil {
		return err
	}
	if !c.JSON {
		return nil
	}
	return e.json(newJSONValue(string(c.Key), int64(len(value)), b.Result(0).Version, meta))
}

// read returns the value and its modification time, before the store is
// opened, so that a slow input keeps no other writer out.
func (c *putCmd) read(e *env) (value []byte, modTime time.Time, err error) {
	if c.File == "-" {
		value, err = readValue(e.in, 0)
		return value, time.Now(), err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	return readFile(f)
}

// readFile returns the contents of an open file and when they were modified,
// which for a pipe is now.
func readFile(f *os.File) (value []byte, modTime time.Time, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		value, err = readValue(f, 0)
		return value, time.Now(), err
	}
	value, err = readValue(f, info.Size())
	return value, info.ModTime(), err
}
