package db

import (
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
	if len(value) > MaxValue {
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

// Put stores a value under a key, replacing the one before. When it returns
// nil the write is as durable as the store or o promises. After any other
// error but those about the arguments, whether it took place is unknown until
// the store is reopened. The key and value are not used after it returns. A
// nil o means defaults. Safe for concurrent use, like all methods of DB.
func (db *DB) Put(key, value []byte, o *PutOptions) error {
	o = o.orDefault()
	ops := []op{newPut(key, value, o.Metadata)}
	return withKey("put", key, db.commit(ops, o.Sync))
}

// Delete removes a key. It returns ErrNotFound if the key has no value, and
// is durable like Put.
func (db *DB) Delete(key []byte, o *PutOptions) error {
	ops := []op{newDelete(key)}
	err := db.commit(ops, o.orDefault().Sync)
	if err == nil && !ops[0].result.Existed {
		err = ErrNotFound
	}
	return withKey("delete", key, err)
}

// Apply makes all changes of a batch at once: after a crash all or none of
// them are there, and no reader ever sees some of them only. Metadata in o is
// not used.
func (db *DB) Apply(b *Batch, o *PutOptions) error {
	return db.commit(b.ops, o.orDefault().Sync)
}

func (o *PutOptions) orDefault() *PutOptions {
	if o == nil {
		return &PutOptions{}
	}
	return o
}
