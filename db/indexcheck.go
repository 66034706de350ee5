package db

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/db/check"
	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// indexCheck compares the index of an open store with the records in its files.
// A record that readers may see must be found, unless a newer one of its key is,
// and nothing else.
type indexCheck struct {
	db         *DB
	visible    uint64 // when the check began
	generation uint64

	live    int               // records that the index points to
	puts    map[string]found  // newest put of keys that the index does not have
	deleted map[string]uint64 // newest tombstone of such keys
	damage  []check.Damage
}

type found struct {
	seq  uint64
	path string
	off  int64
}

func newIndexCheck(db *DB) *indexCheck {
	return &indexCheck{
		db: db, visible: db.index.Visible(), generation: db.currentManifest().Generation,
		puts: make(map[string]found), deleted: make(map[string]uint64),
	}
}

// record compares one record, which was verified. It fails with ErrClosed once
// the store is closed.
func (c *indexCheck) record(r check.Record) error {
	if r.Seq > c.visible {
		return nil
	}
	hit, err := c.find(r.Key)
	switch {
	case errors.Is(err, ErrClosed):
		return err
	case err == nil && hit.Seq < r.Seq:
		c.note(r.Key, r.Path, r.Offset, "the index has an older version than this")
	case err == nil:
		if hit.Segment.ID() == r.Segment && hit.Offset == r.Offset {
			c.live++
		}
	case !errors.Is(err, ErrNotFound):
		c.note(r.Key, r.Path, r.Offset, fmt.Sprint("the index: ", err))
	case r.Kind == segment.KindDelete:
		c.deleted[string(r.Key)] = max(c.deleted[string(r.Key)], r.Seq)
	case c.puts[string(r.Key)].seq < r.Seq:
		c.puts[string(r.Key)] = found{r.Seq, r.Path, r.Offset}
	}
	return nil
}

// find is DB.lookup, guarded.
func (c *indexCheck) find(key []byte) (hit index.Hit, err error) {
	defer vfs.EndGuard(vfs.BeginGuard(), &err)
	return c.db.lookup(key)
}

func (c *indexCheck) note(key []byte, path string, off int64, reason string) {
	c.damage = append(c.damage, check.Damage{
		Err: &CorruptError{Path: path, Offset: off, Reason: reason}, Key: bytes.Clone(key),
	})
}

// finish judges what depends on having seen everything once, unless writes have
// come in between or segments were replaced.
func (c *indexCheck) finish(report *check.VerifyReport) []check.Damage {
	keys := c.db.index.Len()
	steady := report.Rounds == 1 && report.Generation == c.generation && c.db.currentManifest().Generation == c.generation
	if !steady || c.db.index.Visible() != c.visible {
		return c.damage
	}
	for key, put := range c.puts {
		if c.deleted[key] < put.seq {
			c.note([]byte(key), put.path, put.off, "the index does not have this record")
		}
	}
	if len(report.Damage) == 0 && len(c.damage) == 0 && c.live != keys {
		c.damage = append(c.damage, check.Damage{Err: &CorruptError{
			Path: c.db.fs.Path(), Reason: fmt.Sprintf("the index has %d keys, the files have %d", keys, c.live),
		}})
	}
	return c.damage
}
