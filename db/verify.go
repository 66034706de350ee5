package db

import (
	"context"

	"github.com/crowfly/crowfly/db/check"
)

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
func (db *DB) Verify(ctx context.Context, progress func(check.Progress)) (check.VerifyReport, error) {
	if db.closed() {
		return check.VerifyReport{}, ErrClosed
	}
	if err := db.Refresh(); err != nil {
		return check.VerifyReport{}, err
	}
	c := newIndexCheck(db)
	report, err := check.Records(ctx, db.fs, progress, c.record)
	if err != nil {
		return report, err
	}
	report.Damage = append(report.Damage, c.finish(&report)...)
	return report, nil
}
