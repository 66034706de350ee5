//go:build !(linux || darwin || freebsd) || race

package vfs

import (
	"os"
	"sync/atomic"
)

func mapFile(f *os.File, size int64, _ *atomic.Int64) (*Mapping, error) { return HeapMapping(f, size) }

// systemMaps: copies on the heap are no mappings, but counting them costs
// nothing and has the same code run.
func systemMaps() int { return 65530 }
