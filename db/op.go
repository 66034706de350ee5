package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/segment"
)

// op is one put or delete on its way into the store.
type op struct {
	record  *segment.Record
	invalid error // why it can't be stored
	result  Result
	skip    bool // a delete of a key that is not there leaves no record
}

// newPut computes the checksums, so that this happens on the caller's
// goroutine and not while others wait.
func newPut(key, value []byte, m *Metadata) op {
	meta, err := encodePut(key, int64(len(value)), m)
	if err != nil {
		return op{invalid: withKey("put", key, err)}
	}
	return op{record: segment.NewPut(key, meta, value)}
}

// newPutOf is newPut for a value in pieces, of size bytes together.
func newPutOf(key []byte, value [][]byte, size int64, m *Metadata) op {
	meta, err := encodePut(key, size, m)
	if err != nil {
		return op{invalid: withKey("put", key, err)}
	}
	return op{record: segment.NewPutOf(key, meta, value)}
}

// encodePut returns the metadata as it lies in a record, or why the put can't be
// stored.
func encodePut(key []byte, size int64, m *Metadata) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if size > MaxBatchValue {
		return nil, tooLarge(size, MaxBatchValue)
	}
	if m == nil {
		return nil, nil
	}
	meta, err := m.Encode()
	if err != nil {
		return nil, invalid{err}
	}
	return meta, nil
}

func newDelete(key []byte) op {
	if err := checkKey(key); err != nil {
		return op{invalid: withKey("delete", key, err)}
	}
	return op{record: segment.NewDelete(key)}
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKey {
		return ErrKeySize
	}
	return nil
}

// condition is what a write requires of a key. The zero Version means that
// the key has no value: sequence numbers begin at 1.
type condition struct {
	key     []byte
	version Version
}

func (o *PutOptions) conditions(key []byte) (list []condition) {
	if o.IfAbsent {
		list = append(list, condition{key: key})
	}
	if o.IfMatch != nil {
		list = append(list, condition{key, *o.IfMatch})
	}
	return list
}

// Put stores a value under a key, replacing the one before. When it returns
// nil the write is as durable as the store or o promises. After any other
// error but those about the arguments and conditions, whether it took place is
// unknown until the store is reopened. The key and value are not used after it
// returns. A nil o means defaults. Safe for concurrent use, like all methods
// of DB.
func (db *DB) Put(key, value []byte, o *PutOptions) error {
	o = o.orDefault()
	if err := o.check(); err != nil {
		return withKey("put", key, err)
	}
	if int64(len(value)) >= db.opts.BlobSize {
		_, err := db.PutReader(context.Background(), key, bytes.NewReader(value), int64(len(value)), o)
		return err
	}
	c := &commit{ops: []op{newPut(key, value, o.Metadata)}, conditions: o.conditions(key)}
	return withKey("put", key, db.commit(c, o.Sync))
}

// Delete removes a key. It returns ErrNotFound if the key has no value, and
// is durable like Put. It refuses Metadata with ErrInvalid.
func (db *DB) Delete(key []byte, o *PutOptions) error {
	o = o.orDefault()
	if err := errors.Join(o.check(), o.refuse("Delete", "Metadata", o.Metadata != nil)); err != nil {
		return withKey("delete", key, err)
	}
	c := &commit{ops: []op{newDelete(key)}, conditions: o.conditions(key)}
	err := db.commit(c, o.Sync)
	if err == nil && !c.ops[0].result.Existed {
		err = ErrNotFound
	}
	return withKey("delete", key, err)
}

// Apply makes all changes of a batch at once: after a crash all or none of
// them are there, and no reader ever sees some of them only. Of o it takes Sync
// only, and refuses the rest with ErrInvalid: conditions and metadata are said to
// the Batch.
func (db *DB) Apply(b *Batch, o *PutOptions) error {
	o = o.orDefault()
	err := errors.Join(o.check(),
		o.refuse("Apply", "Metadata", o.Metadata != nil),
		o.refuse("Apply", "IfAbsent", o.IfAbsent),
		o.refuse("Apply", "IfMatch", o.IfMatch != nil))
	if err == nil {
		err = b.invalid
	}
	if err != nil {
		return err
	}
	return db.commit(&commit{ops: b.ops, conditions: b.conditions}, o.Sync)
}

// check returns what is wrong with the options themselves.
func (o *PutOptions) check() error {
	if o.Sync < SyncDefault || o.Sync > SyncNever {
		return optionError("PutOptions.Sync", int(o.Sync), "SyncDefault, SyncAlways, SyncInterval or SyncNever")
	}
	if o.IfAbsent && o.IfMatch != nil {
		return invalid{errors.New("PutOptions.IfAbsent and IfMatch exclude each other")}
	}
	if o.IfMatch != nil && *o.IfMatch == (Version{}) {
		return invalid{errors.New("PutOptions.IfMatch is the zero Version, which no value has; IfAbsent requires that there is none")}
	}
	return nil
}

// refuse returns an error if an option is given that an operation does not take.
func (o *PutOptions) refuse(operation, option string, given bool) error {
	if !given {
		return nil
	}
	return invalid{fmt.Errorf("%s does not take PutOptions.%s", operation, option)}
}

func (o *PutOptions) orDefault() *PutOptions {
	if o == nil {
		return &PutOptions{}
	}
	return o
}
