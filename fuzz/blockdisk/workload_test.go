package blockdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// Small files, so that the store goes on to the next one all the time, merges
// what earlier runs left, and has values in files of their own.
const (
	segmentSize = 64 << 10
	blobSize    = 16 << 10
)

func options() *db.Options { return &db.Options{SegmentSize: segmentSize, BlobSize: blobSize} }

// workload drives a store with several writers, and notes what they did and
// when, by the position of the log of the disk.
type workload struct {
	fs       vfs.FS
	position func() uint64
	seed     uint64
	writes   int // of each writer in a round
	journals []journal
	beside   func() error // called by the first writer after every write; may be nil
}

// round opens the store and lets all writers write at once.
func (w *workload) round(n int) (*db.DB, error) {
	opts := options()
	opts.FS = w.fs
	store, err := db.Open("", opts)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(w.journals))
	var all sync.WaitGroup
	for i := range w.journals {
		all.Go(func() {
			one := writer{
				workload: w, n: i, round: n, store: store,
				rng: rand.New(rand.NewPCG(w.seed, uint64(n)<<8|uint64(i))),
			}
			errs[i] = one.run()
		})
	}
	all.Wait()
	return store, errors.Join(errs...)
}

// rounds are some of these, with the store closed in between.
func (w *workload) rounds(from, to int) error {
	for n := from; n < to; n++ {
		store, err := w.round(n)
		if store != nil {
			err = errors.Join(err, store.Close())
		}
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
	}
	return nil
}

type writer struct {
	*workload
	n     int
	round int
	store *db.DB
	rng   *rand.Rand
}

func (w *writer) run() error {
	for range w.writes {
		if err := w.write(); err != nil {
			return fmt.Errorf("writer %d: %w", w.n, err)
		}
	}
	return nil
}

// write does one write. Some are acknowledged before they are durable, in every
// third round most, so that more is pending when the power fails.
func (w *writer) write() error {
	j := &w.journals[w.n]
	synced := w.rng.IntN(3) > 0
	if w.round%3 == 1 {
		synced = w.rng.IntN(24) == 0
	}
	one := write{Changes: w.changes(len(*j) + 1), Synced: synced, Begin: w.position()}
	*j = append(*j, one)
	if err := w.apply(one); err != nil {
		return err
	}
	(*j)[len(*j)-1].Acked = w.position()
	if w.n == 0 && w.beside != nil {
		return w.beside()
	}
	return nil
}

// changes makes up a write. Values have the number of the write they are part
// of, and in a batch of their place in it.
func (w *writer) changes(n int) (list []change) {
	const most = 4 // changes in a write
	count := 1
	if w.rng.IntN(4) == 0 {
		count = 2 + w.rng.IntN(most-1)
	}
	for i, k := range w.rng.Perm(keysOfWriter)[:count] {
		c := change{Key: k}
		if w.rng.IntN(5) > 0 {
			c.Value, c.Size = n*most+i, w.size()
		}
		list = append(list, c)
	}
	return list
}

func (w *writer) size() int {
	switch w.rng.IntN(16) {
	case 0:
		return blobSize + w.rng.IntN(blobSize)
	case 1, 2, 3:
		return minValue + w.rng.IntN(12<<10)
	}
	return minValue + w.rng.IntN(1500)
}

func (w *writer) apply(one write) error {
	o := &db.PutOptions{Sync: db.SyncNever}
	if one.Synced {
		o.Sync = db.SyncAlways
	}
	if len(one.Changes) > 1 {
		return w.store.Apply(w.batch(one), o)
	}
	c := one.Changes[0]
	k, v := key(w.n, c.Key), w.value(c)
	switch {
	case v == nil:
		err := w.store.Delete(k, o)
		if errors.Is(err, db.ErrNotFound) {
			return nil
		}
		return err
	case c.Size >= blobSize:
		_, err := w.store.PutReader(context.Background(), k, bytes.NewReader(v), int64(c.Size), o)
		return err
	}
	return w.store.Put(k, v, o)
}

func (w *writer) batch(one write) *db.Batch {
	var b db.Batch
	for _, c := range one.Changes {
		if v := w.value(c); v != nil {
			b.Put(key(w.n, c.Key), v, nil)
		} else {
			b.Delete(key(w.n, c.Key))
		}
	}
	return &b
}

// value returns nil for a delete.
func (w *writer) value(c change) []byte {
	if c.Value == 0 {
		return nil
	}
	return value(w.n, c.Value, c.Size)
}
