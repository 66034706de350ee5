package main

import "github.com/crowfly/crowfly/db"

type getCmd struct {
	Dir    string `arg:"" help:"Store directory."`
	Key    keyArg `arg:"" help:"Key to get."`
	Output string `short:"o" default:"-" placeholder:"FILE" help:"File to write; - is standard output, and the default."`
}

func (c *getCmd) Run(e *env) (err error) {
	store, err := openReader(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	v, err := store.Value([]byte(c.Key))
	if err != nil {
		return err
	}
	defer closeAfter(v, &err)

	return c.write(e, v)
}

// write sends the mapped value on its way without a copy.
func (c *getCmd) write(e *env, v *db.Value) error {
	value, err := v.Bytes()
	if err != nil {
		return err
	}
	if c.Output == "-" {
		_, err = e.out.Write(value)
		return err
	}
	return writeOutput(c.Output, value, v.ModTime())
}
