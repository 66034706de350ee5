//go:build !unix

package vfs

import "os"

// isUnlinked: Windows removes no directory that is open.
func isUnlinked(*os.File) bool { return false }
