package manifest

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Read reads the manifest of the highest generation among names, or
// returns nil if there is none.
func Read(fsys vfs.FS, names []string) (*List, error) {
	gen, ok := LatestGeneration(names)
	if !ok {
		return nil, nil
	}
	b, err := vfs.ReadFile(fsys, segment.ManifestName(gen))
	if err != nil {
		return nil, err
	}
	m, err := decode(b, gen)
	if err != nil {
		path := filepath.Join(fsys.Path(), segment.ManifestName(gen))
		if errors.Is(err, segment.ErrNewer) {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return nil, &segment.CorruptError{Path: path, Reason: err.Error()} // sabotage: damaged-manifest
	}
	return m, nil
}

// LatestGeneration returns the highest generation among names; ok is false if
// there is none.
func LatestGeneration(names []string) (gen uint64, ok bool) {
	for _, name := range names {
		if g, is := segment.ParseManifestName(name); is {
			gen, ok = max(gen, g), true
		}
	}
	return gen, ok
}
