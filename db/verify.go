package db

import (
	"context"
	"errors"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// VerifyProgress says how far a verification has come.
type VerifyProgress struct {
	File        string // the one being read
	Done, Total int64  // bytes; Total grows with what a writer adds
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	Files   int
	Bytes   int64
	Records uint64
	Damage  []Damage // empty if the store is whole
}

// Verify reads from the files of the store all that anything depends on and
// checks it: headers, all records with their values, also those overwritten
// since, the newest manifest, the values in files of their own. It does not judge
// what nobody reads: the padding of blobs, what lies behind the end of a segment,
// and the manifest before the newest. It compares the index with what it finds,
// as far as no writes come in between. It goes on behind damage, which is no
// error: it returns an error if ctx ends, the store is closed or a file can't be
// opened. progress, which may be nil, is called about once a MiB in the same
// goroutine.
//
// It takes memory for the largest segment, and some for each deleted key.
func (db *DB) Verify(ctx context.Context, progress func(VerifyProgress)) (VerifyReport, error) {
	if db.closed() {
		return VerifyReport{}, ErrClosed
	}
	if err := db.Refresh(); err != nil {
		return VerifyReport{}, err
	}
	in := newInspector(ctx, db.fs, progress)
	c := newIndexCheck(db)
	in.each = c.record
	report, err := in.verify()
	if err != nil {
		return report, err
	}
	report.Damage = append(report.Damage, c.finish(in, len(report.Damage) == 0)...)
	return report, nil
}

// VerifyDir is Verify for a store that can't be opened, as far as it goes: it
// looks at the files only. It writes nothing and takes no lock. Of o it uses
// the FS.
func VerifyDir(ctx context.Context, dir string, o *Options, progress func(VerifyProgress)) (VerifyReport, error) {
	fsys := o.withDefaults().FS
	if fsys == nil {
		d, err := vfs.OpenDir(dir, false)
		if err != nil {
			return VerifyReport{}, err
		}
		fsys = d
	}
	return newInspector(ctx, fsys, progress).verify()
}

// verify follows the manifest until it has seen everything that one names. A
// file may vanish meanwhile if, and only if, there is a newer manifest.
func (in *inspector) verify() (report VerifyReport, err error) {
	var seen []*finding
	skip := func(id segment.ID) bool {
		for _, f := range seen {
			if f.id == id {
				return true
			}
		}
		return false
	}
	for range followAttempts {
		alive, err := in.fs.Locked(segment.LockName)
		if err != nil {
			return report, err
		}
		s, err := in.survey()
		if err == nil {
			err = in.inspect(s, alive, skip)
		}
		if err != nil {
			return report, err
		}
		in.rounds, in.read = in.rounds+1, s.base.Generation
		damage, vanished := in.collect(s)
		if vanished && in.superseded(s) {
			in.gone = false
			for _, f := range s.findings {
				if f.sealed() && len(f.damage) == 0 && !f.missing {
					seen = append(seen, f)
				}
			}
			in.forgetMissing()
			continue
		}
		return VerifyReport{Files: in.files, Bytes: in.at.Done, Records: in.records, Damage: damage}, nil
	}
	return report, errors.New("the manifest changes faster than it can be read")
}

// collect puts together all damage. vanished says that some of it may be the
// work of a writer.
func (in *inspector) collect(s *survey) (damage []Damage, vanished bool) {
	damage, vanished = s.damage, in.gone || len(s.damage) > 0
	for _, f := range s.findings {
		damage = append(damage, f.damage...)
		if f.missing {
			damage, vanished = append(damage, in.absent(s, f)), true
		}
	}
	return damage, vanished
}

func (in *inspector) absent(s *survey, f *finding) Damage {
	return Damage{Err: &CorruptError{
		Path:   in.path(f.name),
		Reason: "file is missing, " + segment.ManifestName(s.base.Generation) + " names it",
	}}
}

// superseded reports whether there is a newer manifest by now.
func (in *inspector) superseded(s *survey) bool {
	names, err := in.fs.List()
	if err != nil {
		return false
	}
	gen, ok := manifest.LatestGeneration(names)
	return ok && gen > s.top
}

// forgetMissing makes the next round look again at blobs with damage.
func (in *inspector) forgetMissing() {
	for x, damage := range in.blobs {
		if len(damage) > 0 {
			delete(in.blobs, x)
		}
	}
}
