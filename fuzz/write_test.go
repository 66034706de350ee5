package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing/iotest"

	"github.com/crowfly/crowfly/db"
)

// write does a put, a delete or a batch, and compares what it reports.
func (s *session) write(op operation) error {
	changes := s.number(op)
	needs, err := s.require(op)
	if err != nil {
		return err
	}
	if want := refusal(op, needs); want != nil {
		return s.writeRefused(op, changes, needs, want)
	}
	before := s.ref.now()
	s.ref.begin(changes)
	rejects := s.poisoned
	results, err := s.apply(op, changes, needs)
	switch {
	case err == nil && rejects:
		return errors.New("acknowledged although a sync has failed before")
	case err == nil:
		s.ref.acknowledge(op.synced || s.opts.Sync == db.SyncAlways)
		return s.checkResults(before, changes, results)
	case s.explain(err) != nil:
		return s.explain(err)
	case rejects:
		s.ref.refuse()
	}
	s.poisoned = s.poisoned || s.syncFailed
	if s.ref.open() > 3 {
		return s.reopen(operation{}) // there are as many choices as two to that power
	}
	return nil
}

// writeRefused does a write that must fail, and of which nothing may ever be
// seen.
func (s *session) writeRefused(op operation, changes []change, needs requirement, want error) error {
	_, err := s.apply(op, changes, needs)
	s.poisoned = s.poisoned || s.syncFailed
	s.seen.note("refused:" + sources[op.source] + conditions[op.needs])
	if errors.Is(err, want) || err != nil && s.explain(err) == nil {
		return nil
	}
	return fmt.Errorf("the store says %v, should say %v", err, want)
}

// refusal is the error that a write must end with, whatever the disk does.
func refusal(op operation, needs requirement) error {
	switch {
	case op.source == fromShort || op.source == fromLong:
		return db.ErrSize
	case op.source == fromBroken:
		return errBroken
	case op.source == fromAborted:
		return context.Canceled
	case !needs.met:
		return db.ErrPrecondition
	}
	return nil
}

// requirement is a condition applied to the present contents.
type requirement struct {
	condition
	version db.Version
	met     bool
}

// require finds out what the condition of a write amounts to.
func (s *session) require(op operation) (requirement, error) {
	key := op.key
	if op.kind == opBatch {
		key = op.guard
	}
	there := s.ref.now()[key] != 0
	if op.needs == always || op.needs == ifAbsent {
		return requirement{op.needs, db.Version{}, op.needs == always || !there}, nil
	}
	before := s.remembered[key]
	if before == (db.Version{}) {
		before.Seq = 1<<64 - 1 // no value has this
	}
	if !there {
		return requirement{op.needs, before, false}, nil
	}
	v, err := s.store.Value(keyBytes[key])
	if err != nil {
		return requirement{}, err
	}
	now := v.Version()
	s.remembered[key] = now
	if op.needs == ifCurrent {
		before = now
	}
	return requirement{op.needs, before, before == now}, v.Close()
}

// number gives the puts of a write their values.
func (s *session) number(op operation) (list []change) {
	switch op.kind {
	case opPut:
		return []change{{op.key, s.ref.newValue(op.size)}}
	case opDelete:
		return []change{{op.key, 0}}
	}
	for _, b := range op.batch {
		list = append(list, s.number(b)...)
	}
	return list
}

// apply writes. It returns what the store says about each change, or nothing
// if it does not say so.
func (s *session) apply(op operation, changes []change, needs requirement) ([]db.Result, error) {
	if op.kind == opBatch {
		return s.applyBatch(op, changes, needs)
	}
	key, o := keyBytes[op.key], &db.PutOptions{IfAbsent: needs.condition == ifAbsent}
	if needs.condition > ifAbsent {
		o.IfMatch = &needs.version
	}
	if op.synced {
		o.Sync = db.SyncAlways
	}
	if op.kind == opDelete {
		err := s.store.Delete(key, o)
		if errors.Is(err, db.ErrNotFound) {
			return []db.Result{{Existed: false}}, nil
		}
		return []db.Result{{Existed: true}}, err
	}
	o.Metadata = metadata(changes[0].value)
	value := s.ref.values[changes[0].value]
	if op.source == fromSlice {
		return nil, s.store.Put(key, value, o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, size := op.source.open(value, cancel)
	result, err := s.store.PutReader(ctx, key, r, size, o)
	return []db.Result{result}, err
}

var errBroken = errors.New("the reader is broken")

// open returns a reader of the value, or one that does not keep what it
// promises, and the size to announce.
func (s source) open(value []byte, cancel func()) (r io.Reader, size int64) {
	r, size = bytes.NewReader(value), int64(len(value))
	half := io.LimitReader(r, size/2)
	switch s {
	case fromReader:
		return iotest.DataErrReader(r), size
	case fromStream:
		return iotest.HalfReader(r), -1
	case fromShort:
		return r, size + 1
	case fromLong:
		return io.MultiReader(r, bytes.NewReader([]byte("more"))), size
	case fromBroken:
		return io.MultiReader(half, iotest.ErrReader(errBroken)), -1
	}
	return io.MultiReader(half, stop(cancel), r), size
}

// stop is a reader that ends the context, and brings nothing.
type stop func()

func (s stop) Read([]byte) (int, error) { s(); return 0, nil }

func (s *session) applyBatch(op operation, changes []change, needs requirement) ([]db.Result, error) {
	b := &s.batch
	b.Reset()
	for _, c := range changes {
		if c.value == 0 {
			b.Delete(keyBytes[c.key])
		} else {
			b.Put(keyBytes[c.key], s.ref.values[c.value], metadata(c.value))
		}
	}
	switch guard := keyBytes[op.guard]; needs.condition {
	case ifAbsent:
		b.RequireAbsent(guard)
	case ifCurrent, ifRemembered:
		b.RequireVersion(guard, needs.version)
	}
	if b.Len() != len(changes) {
		return nil, fmt.Errorf("a batch of %d changes has length %d", len(changes), b.Len())
	}
	o := &db.PutOptions{}
	if op.synced {
		o.Sync = db.SyncAlways
	}
	if err := s.store.Apply(b, o); err != nil {
		return nil, err
	}
	var results []db.Result
	for i := range changes {
		results = append(results, b.Result(i))
	}
	return results, nil
}

// checkResults compares what the store says about each change, and takes down
// which version the values have.
func (s *session) checkResults(before state, changes []change, results []db.Result) error {
	for i, r := range results {
		c := changes[i]
		if want := before[c.key] != 0; r.Existed != want {
			return fmt.Errorf("change %d of key %d: the store says existed %v, it is %v", i, c.key, r.Existed, want)
		}
		if c.value == 0 && r.Version != (db.Version{}) {
			return fmt.Errorf("change %d, a delete, has version %v", i, r.Version)
		}
		if err := s.checkVersion(r.Version, c.value); err != nil {
			return err
		}
		before[c.key] = c.value
	}
	return nil
}

// checkVersion sees to it that a value keeps its version for good and that no
// other has it. Of the empty value there are many.
func (s *session) checkVersion(v db.Version, value uint16) error {
	if value <= 1 {
		return nil
	}
	if known, ok := s.versions[value]; ok && known != v {
		return fmt.Errorf("v%d had version %v, has %v", value, known, v)
	}
	if v.Seq == 0 {
		return fmt.Errorf("v%d has version %v", value, v)
	}
	s.versions[value] = v
	return nil
}

// refused tries what no store may take: impossible keys, and writes to a
// follower.
func (s *session) refused(operation) error {
	for _, key := range [][]byte{nil, {}, make([]byte, db.MaxKey+1)} {
		if err := refusedBy(s.store, key, db.ErrKeySize); err != nil && !s.poisoned {
			return err
		}
	}
	if s.follower.store == nil {
		return nil
	}
	return refusedBy(s.follower.store, keyBytes[0], db.ErrReadOnly)
}

// refusedBy tries every way to write a key.
func refusedBy(store *db.DB, key []byte, want error) error {
	var put, remove db.Batch
	put.Put(key, nil, nil)
	remove.Delete(key)
	_, err := store.PutReader(context.Background(), key, bytes.NewReader(nil), 0, nil)
	for way, err := range map[string]error{
		"Put": store.Put(key, nil, nil), "Delete": store.Delete(key, nil), "PutReader": err,
		"Apply of a put": store.Apply(&put, nil), "Apply of a delete": store.Apply(&remove, nil),
	} {
		if !errors.Is(err, want) {
			return fmt.Errorf("%s with a key of %d bytes: %v, should be %v", way, len(key), err, want)
		}
	}
	return nil
}
