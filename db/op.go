package db

import (
	"bytes"
	"context"

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
	if err := checkKey(key); err != nil {
		return op{invalid: withKey("put", key, err)}
	}
	if len(value) > MaxBatchValue {
		return op{invalid: withKey("put", key, ErrValueTooLarge)}
	}
	var meta []byte
	if m != nil {
		var err error
		if meta, err = m.Encode(); err != nil {
			return op{invalid: withKey("put", key, err)}
		}
	}
	return op{record: segment.NewPut(key, meta, value)}
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
	if int64(len(value)) >= db.opts.BlobSize {
		_, err := db.PutReader(context.Background(), key, bytes.NewReader(value), int64(len(value)), o)
		return err
	}
	c := &commit{ops: []op{newPut(key, value, o.Metadata)}, conditions: o.conditions(key)}
	return withKey("put", key, db.commit(c, o.Sync))
}

// Delete removes a key. It returns ErrNotFound if the key has no value, and
// is durable like Put.
func (db *DB) Delete(key []byte, o *PutOptions) error {
	o = o.orDefault()
	c := &commit{ops: []op{newDelete(key)}, conditions: o.conditions(key)}
	err := db.commit(c, o.Sync)
	if err == nil && !c.ops[0].result.Existed {
		err = ErrNotFound
	}
	return withKey("delete", key, err)
}

// Apply makes all changes of a batch at once: after a crash all or none of
// them are there, and no reader ever sees some of them only. Of o only Sync is
// used.
func (db *DB) Apply(b *Batch, o *PutOptions) error {
	return db.commit(&commit{ops: b.ops, conditions: b.conditions}, o.orDefault().Sync)
}

func (o *PutOptions) orDefault() *PutOptions {
	if o == nil {
		return &PutOptions{}
	}
	return o
}
