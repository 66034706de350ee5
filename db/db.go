package db

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// DB is an open store. All methods are safe for concurrent use.
type DB struct {
	// Constant after Open.
	fs     vfs.FS
	opts   Options
	unlock func() error // nil if read-only

	// Synchronised by themselves.
	index     *index.Index
	manifests *manifest.Owner
	blobs     *blobs
	hints     hints
	queue     commitQueue
	handles   handles
	pinned    pinned
	counters  counters
	follow    follower // read-only stores
	compactor compactor
	cause     atomic.Pointer[error] // writer.poison, once Health has seen it
	lastWrite lastWrite

	// Guarded by write, which the leader of a group holds.
	write  lockorder.Mutex[lockorder.Writer]
	writer writer
}

// writer is the writing half of a store, guarded by DB.write.
type writer struct {
	active *segment.Writer // nil before the first write
	spare  *segment.Writer // the next one, empty; nil until active is half full
	broken bool            // active can't be appended to any more
	poison error           // a failed sync: no more writes in this run
	seq    uint64          // last sequence number in a segment
	staged []index.Change  // of the group under way
	timers timers
}

// counters since Open.
type counters struct{ commits, records, syncs atomic.Uint64 }

// Open opens the store in a directory, which is created if need be, takes the
// lock, and recovers what an unclean stop left behind. A nil o means defaults.
//
// It fails with ErrLocked if another writer has the store open, with a
// *CorruptError if durable bytes are damaged, with ErrNewer if the store needs
// a newer version. In all these cases nothing on disk has been changed. It
// fails with ErrNoSpace if there is no room for what has to be recovered.
func Open(dir string, o *Options) (*DB, error) {
	if o != nil {
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
	}
	opts := o.withDefaults()
	db, err := openStore(dir, opts)
	if err != nil && !opts.ReadOnly {
		err = writeError(err)
	}
	return db, err
}

func openStore(dir string, opts Options) (*DB, error) {
	fsys := opts.FS
	if fsys == nil {
		if dir == "" {
			return nil, invalid{errors.New("open: the name of the directory is empty")}
		}
		var d *vfs.Dir
		err := vfs.AfterCollection(opts.Collect, func() (err error) {
			d, err = vfs.OpenDir(dir, !opts.ReadOnly)
			return err
		})
		if err != nil {
			return nil, err
		}
		d.Collect = opts.Collect
		fsys = d
	}
	db := &DB{
		fs: fsys, opts: opts,
		index: index.New(index.Options{KeepTombstones: opts.ReadOnly}),
		blobs: newBlobs(fsys, !opts.ReadOnly),
	}
	db.pinned.begin()
	if opts.ReadOnly {
		if err := db.openFollower(); err != nil {
			return nil, err
		}
		return db, nil
	}
	unlock, err := fsys.Lock(segment.LockName)
	if err != nil {
		return nil, err
	}
	db.unlock = unlock
	if err := db.recover(); err != nil {
		return nil, errors.Join(err, unlock())
	}
	return db, nil
}

// Close waits for the writes under way, makes everything durable and releases
// the lock. Reads that have begun may end, and what open handles hold stays
// valid; mappings go when the last of them does. It returns ErrOpenHandles,
// with the store closed, if there are such handles. If there are none it forces a
// collection, see Options.Collect, and waits up to 1 s, so that the descriptors
// and mappings are gone on return. A second Close does nothing.
func (db *DB) Close() error {
	if db.opts.ReadOnly {
		return db.closeFollower()
	}
	db.stopCompactor()
	db.write.Lock()
	defer db.write.Unlock()
	if db.closed() {
		return nil
	}
	db.compactor.room.release(db.fs) // the last manifest needs some room
	err := writeError(db.finish())
	db.manifests.Unprepare() // unless the last edit has used it
	db.index.Close()
	err = errors.Join(err, db.unlock())
	return errors.Join(err, db.letFilesGo())
}

// letFilesGo has the descriptors and mappings of a closed store go at once, which
// takes a collection, unless handles are open. It reports these.
func (db *DB) letFilesGo() error {
	if err := db.handles.stillOpen(); err != nil {
		return err
	}
	db.writer.active, db.writer.spare = nil, nil
	db.blobs.cache.Clear()
	if d, ok := db.fs.(*vfs.Dir); ok {
		d.Settle()
	}
	return nil
}

// closed reports whether Close has come as far as to refuse reads.
func (db *DB) closed() bool { return db.index.Segments() == nil }

// attach gives a segment a slot and lets readers see it. It comes before the
// first index entry that names the segment.
func (db *DB) attach(seg *segment.Segment) error {
	return db.collecting(func() error { return db.index.Attach(seg) })
}

// finish seals the active segment, so that the next Open finds nothing to
// recover. A store that was not written to has none and is left as it is.
func (db *DB) finish() error {
	w := db.writer.active
	if w == nil || db.writer.poison != nil {
		return db.writer.poison
	}
	db.dropSpare()
	if err := db.syncActive(); err != nil {
		return err
	}
	w.Trim() // makes room for the manifest on a full disk
	if err := db.editManifest(db.sealActive); err != nil {
		return err
	}
	db.afterSeal(w)
	db.hintLast(w.Segment().ID())
	return nil
}
