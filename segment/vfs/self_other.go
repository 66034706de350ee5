//go:build !unix

package vfs

import "os"

// self opens the directory anew: a descriptor of its own has a position of its own.
func (d *Dir) self() (*os.File, error) { return d.root.Open(".") }
