package manifest

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Owner changes the manifest of an open store. A process has one for each store
// that it writes to. If an edit fails after its file may have got its name, the
// outcome is unknown: later edits fail with the same error, and what the edit
// would have removed stays until the store is opened again.
//
// Its methods are safe for concurrent use.
type Owner struct {
	fs    vfs.FS
	epoch uint32

	files atomic.Uint64 // number of the next file of the store

	mu       lockorder.Mutex[lockorder.Manifest]
	current  *List
	unknown  error    // why the outcome of an edit is unknown
	prepared vfs.File // for the next generation; nil if Prepare did not make one
}

// NewOwner returns the owner of a list that was read from fsys, or of the first
// one. files is the number of the next new file.
func NewOwner(fsys vfs.FS, current *List, files segment.ID) *Owner {
	o := &Owner{fs: fsys, epoch: current.Epoch + 1, current: current}
	o.files.Store(uint64(files))
	return o
}

// Epoch is the number of this run. It goes into the header of every new file.
func (o *Owner) Epoch() uint32 { return o.epoch }

// TakeID returns the number for a new file. It is used up even if the file is
// not made.
func (o *Owner) TakeID() segment.ID { return segment.ID(o.files.Add(1) - 1) }

// NextID is the number that TakeID returns next.
func (o *Owner) NextID() segment.ID { return segment.ID(o.files.Load()) }

// Current is the list as of the last edit.
func (o *Owner) Current() *List {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// OutcomeKnown is false once an edit may or may not have reached the disk.
func (o *Owner) OutcomeKnown() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unknown == nil
}

// Edit applies a change to a copy of the current list and makes the result
// durable. Then it removes generations before the last two.
func (o *Owner) Edit(change func(*List)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unknown != nil {
		return o.unknown
	}
	next := *o.current
	next.Segments = slices.Clone(o.current.Segments)
	next.Generation++
	next.Epoch = o.epoch
	change(&next)
	file := o.prepared
	o.prepared = nil
	if err := commit(o.fs, &next, file); err != nil {
		if errors.Is(err, errUnknown) {
			o.unknown = err
		}
		return fmt.Errorf("manifest generation %d: %w", next.Generation, err)
	}
	o.current = &next
	if !next.Repaired {
		o.removeBefore(next.Generation - 1)
	}
	return nil
}

// EditAndPrepare is Edit, and then Prepare if the file of this generation was
// prepared too: on a full disk deletes count on that. It is for every edit but
// the last.
func (o *Owner) EditAndPrepare(change func(*List)) error {
	ready := o.Prepared()
	err := o.Edit(change)
	if err == nil && ready { // sabotage: prepare-manifest
		o.Prepare() // if there is no space, the next put tries again
	}
	return err
}

// EndRepair notes that a repair has moved everything to the trash. The next
// generation says so on disk.
func (o *Owner) EndRepair() {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := *o.current
	next.Repaired = false
	o.current = &next
}

// Prepare makes the file of the next generation and reserves its disk blocks, so
// that a full disk does not stop the next edit.
func (o *Owner) Prepare() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.prepared != nil || o.unknown != nil {
		return o.unknown
	}
	const growth = 2 * page // of the two images
	f, err := vfs.CreateAnew(o.fs, tempName(o.current.Generation+1))
	if err != nil {
		return err
	}
	if err := f.Reserve(0, int64(len(o.current.encode())+growth)); err != nil {
		return errors.Join(err, f.Close(), o.fs.Remove(f.Name()))
	}
	o.prepared = f
	return nil
}

// Prepared reports whether the file of the next generation is ready.
func (o *Owner) Prepared() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.prepared != nil
}

// Unprepare removes the file that Prepare made, if no edit has used it.
func (o *Owner) Unprepare() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.prepared != nil {
		o.prepared.Close()
		o.fs.Remove(o.prepared.Name())
		o.prepared = nil
	}
}

// removeBefore unlinks generations before gen. The one before the current stays
// until the current has a successor.
func (o *Owner) removeBefore(gen uint64) {
	names, err := o.fs.List()
	if err != nil {
		return // the next edit tries again
	}
	for _, name := range names {
		if g, ok := segment.ParseManifestName(name); ok && g < gen {
			o.fs.Remove(name)
		}
	}
}
