//go:build !linux

package vfs

// renameExclusive renames and fails with fs.ErrExist if the new name is taken.
func renameExclusive(from, to string) error { return linkThenUnlink(from, to) }
