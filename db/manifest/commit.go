package manifest

import (
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// errUnknown is the error of a commit that may or may not have reached the disk.
var errUnknown = errors.New("outcome unknown, reopen the store")

// Commit makes a generation durable. Its name must be free.
func Commit(fsys vfs.FS, m *List) error { return commit(fsys, m, nil) }

// commit writes a generation under a temporary name, syncs it, renames it and
// syncs the directory. file is an empty file with the temporary name, or nil.
func commit(fsys vfs.FS, m *List, file vfs.File) error {
	temp := tempName(m.Generation)
	if err := write(fsys, temp, file, m.encode()); err != nil {
		return errors.Join(err, fsys.Remove(temp))
	}
	err := fsys.Rename(temp, segment.ManifestName(m.Generation))
	if err == nil {
		err = fsys.SyncDir() // sabotage: name-manifest
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	return nil
}

func tempName(generation uint64) string {
	return segment.TempName(segment.ManifestName(generation))
}

// write makes a synced file that contains b.
func write(fsys vfs.FS, name string, f vfs.File, b []byte) (err error) {
	if f == nil {
		f, err = vfs.CreateAnew(fsys, name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := segment.WriteAll(f, [][]byte{b}, 0); err != nil {
		return err
	}
	return f.Sync() // sabotage: sync-manifest
}
