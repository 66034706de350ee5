//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly || windows)

package vfs

import (
	"errors"
	"os"
)

// setLock refuses: a store that can't be locked must not be written.
func setLock(*os.File, bool) error { return errors.ErrUnsupported }

func clearLock(*os.File) error { return errors.ErrUnsupported }

func cantLock(error) bool { return true }
