package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// RepairOptions for Repair. The zero value is what most want.
type RepairOptions struct {
	// DryRun only tells what a repair would do, and writes nothing. It takes
	// no lock, but refuses a store that a writer has open.
	DryRun bool

	Progress func(Progress) // may be nil

	// FS is the directory to use instead of the one named, for tests.
	FS vfs.FS
}

// RepairReport is what a repair found and did.
type RepairReport struct {
	Damage  []Damage    // all that was found
	Lost    []LostKey   // keys whose newest version is lost, sorted
	Unknown []LostRange // stretches of which nobody can tell what was there

	// ManifestLost says that the list of segments had to be put together from
	// the files. Then values that were deleted may have come back.
	ManifestLost bool

	Copied  uint64   // records copied out of damaged files
	Trashed []string // files moved to the trash, their new paths
	Changed bool     // false if there was nothing to repair
}

// LostKey is a key whose newest version was damaged.
type LostKey struct {
	Key       []byte
	OlderKept bool // the key now has an older value, or one although it was deleted
	Path      string
	Offset    int64
}

// LostRange is where records may have been that nobody can read any more. A key
// whose newest record was there has an older value now, or none.
type LostRange struct {
	Path     string
	From, To int64 // To is 0 for a whole file
}

// lostSeqs is what sequence numbers skip when records with unknown ones are
// lost: a version must not be given out again.
const lostSeqs = 1 << 32

// Repair makes a damaged store one that opens. It keeps every record that
// verifies, with its sequence number, and moves whatever it takes out of the
// store to the trash, where nobody looks. A store without damage is left as it
// is. A tombstone is kept like a value; a value whose newer version is lost
// comes back and is reported.
//
// It takes the lock, and fails with vfs.ErrLocked if a writer has it, with segment.ErrNewer
// if any file is from a newer version, in both cases without having changed
// anything. A repair that was cut off leaves the old state or the new one, and
// can be run again; the next Open moves to the trash what it did not.
func Repair(ctx context.Context, dir string, o *RepairOptions) (RepairReport, error) {
	if o == nil {
		o = &RepairOptions{}
	}
	fsys, err := directory(dir, o.FS)
	if err != nil {
		return RepairReport{}, err
	}
	// Before a lock is made: is this a store, and one of this version?
	if _, err := newInspector(ctx, fsys, nil).survey(); err != nil {
		return RepairReport{}, err
	}
	r := &repair{inspector: newInspector(ctx, fsys, o.Progress), dry: o.DryRun}
	unlock, err := r.lock()
	if err != nil {
		return r.report, err
	}
	err = r.run()
	if uerr := unlock(); err == nil {
		err = uerr
	}
	return r.report, vfs.NameNoSpace(err)
}

// repair is one run of Repair.
type repair struct {
	*inspector
	dry    bool
	survey *survey
	report RepairReport

	next   manifest.List
	named  map[segment.ID]bool    // blobs of the records that stay
	losses map[string]*lostRecord // newest lost record of a key
	where  map[string]*finding
	kept   map[string]keptRecord // newest record that stays, of those keys

	outputs []string // segments made by this run
}

type keptRecord struct {
	seq  uint64
	kind segment.Kind
}

func (r *repair) lock() (unlock func() error, err error) {
	if !r.dry {
		return r.fs.Lock(segment.LockName)
	}
	locked, err := r.fs.Locked(segment.LockName)
	if err == nil && locked {
		err = &fs.PathError{Op: "repair", Path: r.fs.Path(), Err: vfs.ErrLocked}
	}
	return func() error { return nil }, err
}

// run is a repair in the order that makes it safe:
//
//  1. look at everything
//  2. copy what verifies out of damaged segments, and sync the copies
//  3. make the manifest durable that names the copies instead
//  4. only then move the replaced files to the trash
//
// The manifest says that a repair wrote it. Whoever opens a store with such a
// manifest after a repair that was cut off does the last step, see finishRepair.
func (r *repair) run() (err error) {
	if r.survey, err = r.inspector.survey(); err != nil {
		return err
	}
	if err := r.inspect(r.survey, false, func(segment.ID) bool { return false }); err != nil {
		return err
	}
	if err := r.refuse(); err != nil {
		return err
	}
	r.account()
	if len(r.report.Damage) == 0 {
		return r.tidy()
	}
	err = r.rebuild()
	if err == nil && !r.dry {
		err = r.commit()
	}
	if err != nil {
		return r.undo(err)
	}
	r.judgeLost()
	r.report.Changed = true
	return r.sweep()
}

// undo removes the copies of a repair that has failed with err, unless its
// manifest is there and names them. Where there is no other manifest the next
// repair would take them for segments.
func (r *repair) undo(err error) error {
	names, lerr := r.fs.List()
	if lerr != nil || slices.Contains(names, segment.ManifestName(r.next.Generation)) {
		return errors.Join(err, lerr)
	}
	for _, name := range r.outputs {
		err = errors.Join(err, r.fs.Remove(name))
	}
	return err
}

// refuse stops at directories in which there is nothing to go by.
func (r *repair) refuse() error {
	s := r.survey
	if s.base.Generation > 0 || len(s.headers) > 0 || !r.anyFile(s) {
		return nil
	}
	return fmt.Errorf("%s: neither a manifest nor the header of any segment can be read", r.fs.Path())
}

// account collects damage and losses of all segments.
func (r *repair) account() {
	s := r.survey
	r.report.Damage, _ = r.collect(s)
	r.report.ManifestLost = s.lost && len(r.report.Damage) > 0
	r.losses, r.where = make(map[string]*lostRecord), make(map[string]*finding)
	for _, f := range s.findings {
		if f.missing || f.foreign {
			f.gap(r.path(f.id.FileName()), segment.HeaderSize, knownEnd(f.entry))
		}
		r.report.Unknown = append(r.report.Unknown, f.gaps...)
		for i := range f.lost {
			l := &f.lost[i]
			if old := r.losses[l.key]; old == nil || old.seq < l.seq {
				r.losses[l.key], r.where[l.key] = l, f
			}
		}
	}
}

// knownEnd is how far the records of a segment reached that is gone, 0 if
// nobody knows.
func knownEnd(e *manifest.Entry) int64 {
	if e == nil || e.Active {
		return 0
	}
	return e.Length
}

// tidy finishes a repair that was cut off before it had moved everything.
func (r *repair) tidy() error {
	r.next = *r.survey.base
	r.named = make(map[segment.ID]bool)
	for _, f := range r.survey.findings {
		r.name(f.refs)
	}
	useless := func(name string) bool { return r.uselessBlob(name) || r.uselessSegment(name) || r.oldManifest(name) }
	if !r.next.Repaired || !slices.ContainsFunc(r.survey.names, useless) {
		return nil
	}
	r.report.Changed = true
	return r.sweep()
}

func (r *repair) name(refs []segment.BlobExtent) {
	for _, x := range refs {
		r.named[x.Blob] = true
	}
}

// judgeLost decides which lost records matter: those that were the newest of
// their key.
func (r *repair) judgeLost() {
	for key, l := range r.losses {
		kept, ok := r.kept[key]
		older := ok && kept.kind != segment.KindDelete
		if ok && kept.seq >= l.seq || l.kind == segment.KindDelete && !older {
			continue
		}
		r.report.Lost = append(r.report.Lost, LostKey{[]byte(key), older, r.path(r.where[key].name), l.off})
	}
	slices.SortFunc(r.report.Lost, func(a, b LostKey) int { return cmp.Compare(string(a.Key), string(b.Key)) })
}

// commit makes the new manifest durable. From here on the store is repaired.
func (r *repair) commit() error {
	if err := r.fs.MakeTrash(); err != nil {
		return err
	}
	return manifest.Commit(r.fs, &r.next)
}

// sweep moves to the trash what the manifest has no use for.
func (r *repair) sweep() error {
	for _, ours := range []func(name string) bool{r.uselessBlob, r.uselessSegment, r.oldManifest} {
		for _, name := range r.survey.names {
			if !ours(name) {
				continue
			}
			if err := r.trash(name); err != nil {
				return err
			}
		}
	}
	if r.dry {
		return nil
	}
	return r.fs.SyncDir()
}

func (r *repair) uselessBlob(name string) bool {
	id, ok := segment.ParseBlobName(name)
	return ok && !r.named[id]
}

func (r *repair) uselessSegment(name string) bool {
	id, ok := segment.ParseFileName(name)
	return ok && r.next.Entry(id) == nil
}

func (r *repair) oldManifest(name string) bool {
	gen, ok := segment.ParseManifestName(name)
	return ok && gen != r.next.Generation
}

func (r *repair) trash(name string) error {
	path := filepath.Join(vfs.TrashDir, name)
	if !r.dry {
		var err error
		if path, err = r.fs.Trash(name); err != nil {
			return err
		}
	}
	r.report.Trashed = append(r.report.Trashed, path)
	return nil
}
