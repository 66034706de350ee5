package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/bench/measure"
	"github.com/crowfly/crowfly/db"
)

type crowfly struct{ *db.DB }

func openCrowfly(dir string, c config) (store, error) {
	s, err := db.Open(dir, &db.Options{Sync: db.SyncNever, SegmentSize: c.segment})
	return crowfly{s}, err
}

func (s crowfly) write(list []change) error {
	var b db.Batch
	for _, c := range list {
		if c.value == nil {
			b.Delete(c.key)
		} else {
			b.Put(c.key, c.value, nil)
		}
	}
	return s.Apply(&b, nil)
}

func (s crowfly) view(key []byte, fn func([]byte) error) error {
	err := s.View(key, fn)
	if errors.Is(err, db.ErrNotFound) {
		return errAbsent
	}
	return err
}

func (s crowfly) compact() error { return s.Compact(context.Background(), nil) }

func (s crowfly) close() error { return s.Close() }

func (s crowfly) pinned() pinned {
	p := s.Stats().Pinned
	return pinned{p.Bytes, p.Moved}
}

// held is crowfly with a Value and a View that begin after the first round and
// stay: all their segments' records are overwritten by the end of the second.
type held struct {
	crowfly
	value *db.Value
	slice []byte // of value
	shown uint64 // the number of value's key

	letGo chan struct{}
	ended chan error // of the View
}

func openHeld(dir string, c config) (store, error) {
	s, err := db.Open(dir, &db.Options{Sync: db.SyncNever, SegmentSize: c.segment})
	return &held{crowfly: crowfly{s}}, err
}

func (h *held) hold(w *workload) (err error) {
	order := w.order(1)
	h.shown = uint64(order[0])
	if h.value, err = h.Value(measure.Key(nil, h.shown)); err != nil {
		return err
	}
	if h.slice, err = h.value.Bytes(); err != nil {
		return err
	}
	viewed := uint64(order[len(order)/2])
	h.letGo, h.ended = make(chan struct{}), make(chan error, 1)
	began := make(chan struct{})
	go func() {
		h.ended <- h.View(measure.Key(nil, viewed), func(value []byte) error {
			close(began)
			<-h.letGo
			return checkValue(value, viewed, 1)
		})
	}()
	select {
	case <-began:
		return nil
	case err := <-h.ended:
		return fmt.Errorf("the View that is to be held: %w", err)
	}
}

func (h *held) release() error {
	p := h.Stats().Pinned
	close(h.letGo)
	err := errors.Join(<-h.ended, checkValue(h.slice, h.shown, 1), h.value.Close())
	if err == nil && p.Segments == 0 {
		err = errors.New("nothing that was held was removed")
	}
	return err
}
