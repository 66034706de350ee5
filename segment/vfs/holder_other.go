//go:build !linux

package vfs

import "io/fs"

// lockHolder: there is no portable way to ask.
func lockHolder(...fs.FileInfo) string { return "" }
