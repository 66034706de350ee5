//go:build !(linux || darwin || freebsd) || race

package vfs

import "os"

func mapFile(f *os.File, size int64) (*Mapping, error) { return HeapMapping(f, size) }
