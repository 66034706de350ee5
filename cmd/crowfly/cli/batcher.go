package cli

import (
	"context"
	"errors"
	"io"

	"github.com/crowfly/crowfly/db"
)

// Limits of one batch. A larger value goes alone.
const (
	batchBytes  = 8 << 20
	batchValues = 256
)

// batcher stores many values: small ones in batches, large ones alone.
type batcher struct {
	store  *db.DB
	report *report
	event  string // what the report says about a value that is stored

	batch   db.Batch
	bytes   int // of keys and values in the batch
	pending []stored
}

// stored is a value in the batch.
type stored struct {
	key   string
	value []byte
	meta  *db.Metadata
}

// add adds a value to the batch.
func (b *batcher) add(key string, value []byte, meta *db.Metadata) error {
	size := len(key) + len(value)
	if b.bytes+size > batchBytes {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.batch.Put([]byte(key), value, meta)
	b.bytes += size
	b.pending = append(b.pending, stored{key, value, meta})
	if b.bytes >= batchBytes || b.batch.Len() == batchValues {
		return b.flush()
	}
	return nil
}

// flush stores the batch. If one of its values can't be stored, by no fault of the
// store, the others are stored one by one.
func (b *batcher) flush() error {
	if b.batch.Len() == 0 {
		return nil
	}
	err := b.store.Apply(&b.batch, nil)
	alone := errors.Is(err, db.ErrInvalid)
	if err != nil && !alone {
		return err
	}
	for _, s := range b.pending {
		if alone {
			err := b.store.Put([]byte(s.key), s.value, &db.PutOptions{Metadata: s.meta})
			if errors.Is(err, db.ErrInvalid) {
				b.report.fail(s.key, reason(err))
				continue
			}
			if err != nil {
				return err
			}
		}
		if err := b.report.done(b.event, s.key, int64(len(s.value))); err != nil {
			return err
		}
	}
	b.batch.Reset()
	clear(b.pending) // of the values
	b.bytes, b.pending = 0, b.pending[:0]
	return b.report.env.out.Flush() // what was printed is safe on disk
}

// stream stores a value alone, of a size that may be unknown. If it can't be
// read that is reported; only an error of the store is returned.
func (b *batcher) stream(ctx context.Context, key string, r io.Reader, size int64, meta *db.Metadata) error {
	if err := b.flush(); err != nil {
		return err
	}
	t := &tap{r: r, passed: b.report.passed}
	_, err := b.store.PutReader(ctx, []byte(key), t, size, &db.PutOptions{Metadata: meta})
	switch {
	case err == nil:
		if err := b.report.done(b.event, key, t.read); err != nil {
			return err
		}
		return b.report.env.out.Flush()
	case ctx.Err() != nil:
		return err
	case t.err != nil, errors.Is(err, db.ErrSize), errors.Is(err, db.ErrInvalid):
		b.report.fail(key, reason(err))
		return nil
	}
	return err
}
