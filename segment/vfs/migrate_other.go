//go:build !linux || race

package vfs

import "errors"

// moveToMemory needs mremap.
func (m *Mapping) moveToMemory(int64) error { return errors.ErrUnsupported }

func (m *Mapping) populate(from, n int64) error { return nil }
