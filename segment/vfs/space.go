package vfs

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrNoSpace says that the disk, or the quota of the user, is full.
var ErrNoSpace = errors.New("no space left for writing")

// IsNoSpace reports whether an error is about a full disk or quota.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// NameNoSpace adds ErrNoSpace to an error about a full disk, unless it has it.
func NameNoSpace(err error) error {
	if IsNoSpace(err) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err) // sabotage: name-no-space
	}
	return err
}
