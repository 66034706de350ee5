package check

import (
	"context"
	"errors"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Progress says how far a verification or repair has come.
type Progress struct {
	File        string // the one being read
	Done, Total int64  // bytes; Total grows with what a writer adds
}

// VerifyOptions for Verify. nil and the zero value mean no progress.
type VerifyOptions struct {
	// Progress, if not nil, is called about once a MiB, in the goroutine of
	// the caller.
	Progress func(Progress)

	// FS is the directory to use instead of the one named, for tests.
	FS vfs.FS
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	Files      int
	Bytes      int64
	Records    uint64
	Damage     []Damage // empty if the store is whole
	Generation uint64   // of the manifest that named the files
	Rounds     int      // how many manifests were followed; more than 1 beside a writer
}

// Verify reads the files of the store in a directory and checks everything that
// a store depends on: headers, all records with their values, including
// superseded ones, the newest manifest, and values in files of their own. It
// does not judge what no reader looks at: the padding of blobs, the bytes after
// the end of a segment, and the manifest before the newest.
//
// It goes on after damage, which is in the report and not an error. It fails if
// ctx ends or a file can't be opened. It writes nothing and takes no lock, so
// it also works for a store that can't be opened, and beside a writer. It needs
// memory for the largest segment.
func Verify(ctx context.Context, dir string, o *VerifyOptions) (VerifyReport, error) {
	if o == nil {
		o = &VerifyOptions{}
	}
	fsys, err := directory(dir, o.FS)
	if err != nil {
		return VerifyReport{}, err
	}
	return Records(ctx, fsys, o.Progress, nil)
}

// Record is a record that verifies, and where it lies.
type Record struct {
	*segment.Record // valid during the call
	Segment         segment.ID
	Path            string
}

// Records is Verify that calls each, if not nil, with every indexed record that
// verifies. It ends with the first error of each.
func Records(ctx context.Context, fsys vfs.FS, progress func(Progress), each func(Record) error) (VerifyReport, error) {
	in := newInspector(ctx, fsys, progress)
	in.each = each
	return in.verify()
}

// directory is the FS of an option, or the directory with that name.
func directory(dir string, fsys vfs.FS) (vfs.FS, error) {
	if fsys != nil {
		return fsys, nil
	}
	return vfs.OpenDir(dir, false)
}

// followAttempts bounds how often a writer may replace the manifest during a
// verification.
const followAttempts = 100

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
		in.rounds++
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
		return VerifyReport{
			Files: in.files, Bytes: in.at.Done, Records: in.records, Damage: damage,
			Generation: s.base.Generation, Rounds: in.rounds,
		}, nil
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
	return Damage{Err: &segment.CorruptError{
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
