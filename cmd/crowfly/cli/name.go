package cli

import (
	"errors"
	"path/filepath"
	"strings"
)

// checkName reports why a key can't be the name of a file below a directory,
// or nil.
func checkName(key string) error {
	switch {
	case strings.ContainsRune(key, 0):
		return errors.New("has a NUL byte")
	case strings.HasPrefix(key, "/"):
		return errors.New("begins with a slash")
	case strings.HasSuffix(key, "/"):
		return errors.New("ends with a slash")
	}
	for part := range strings.SplitSeq(key, "/") {
		switch part {
		case "":
			return errors.New("has an empty path component")
		case ".", "..":
			return errors.New("has a . or .. as path component")
		}
	}
	if !isLocal(key) {
		return errors.New("is not a file name on this system")
	}
	return nil
}

// isLocal asks the system about backslashes, drive letters and reserved names.
func isLocal(key string) bool {
	foreign := filepath.Separator != '/' && strings.ContainsRune(key, filepath.Separator)
	return !foreign && filepath.IsLocal(filepath.FromSlash(key))
}

// ancestors finds keys that are directories of others among keys that come in
// byte order. Between a and a/b there may be others such as a-b, but all of
// them begin with a: so it keeps the keys that the last one begins with.
type ancestors []string

// next takes the next key. If an earlier one is a directory of it, that is
// returned, once.
func (a *ancestors) next(key string) (parent string, found bool) {
	keys := *a
	for len(keys) > 0 && !strings.HasPrefix(key, keys[len(keys)-1]) {
		keys = keys[:len(keys)-1]
	}
	for i, k := range keys {
		if key[len(k)] == '/' {
			parent, found = k, true
			keys = append(keys[:i], keys[i+1:]...)
			break
		}
	}
	*a = append(keys, key)
	return parent, found
}
