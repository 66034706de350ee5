package db

import "errors"

// Batch collects puts and deletes that are applied together: all of them or
// none, also after a crash, and no reader sees a part. It refers to the keys
// and values it is given, which must not change until Apply returns. The zero
// Batch is empty and ready. It is not safe for concurrent use.
//
// What can't be stored is refused with [ErrInvalid] when it is added. Apply
// returns the first such error again and changes nothing, until Reset.
type Batch struct {
	ops        []op
	conditions []condition
	invalid    error // the first that was refused
}

// Result is what became of one operation of an applied batch.
type Result struct {
	Version Version // of the value written; zero for a delete
	Existed bool    // the key had a value before
}

// Put adds a put. The metadata may be nil. It fails with [ErrInvalid] if the key,
// the value, which may have up to MaxBatchValue bytes, or the metadata can't be
// stored.
func (b *Batch) Put(key, value []byte, m *Metadata) error {
	return b.add(newPut(key, value, m))
}

// Delete adds a delete. Deleting a key that is not there is not an error. It fails
// with [ErrInvalid] if there can be no such key.
func (b *Batch) Delete(key []byte) error { return b.add(newDelete(key)) }

func (b *Batch) add(o op) error {
	b.ops = append(b.ops, o)
	return b.refuse(o.invalid)
}

// refuse notes why the batch can't be applied, unless err is nil.
func (b *Batch) refuse(err error) error {
	if b.invalid == nil {
		b.invalid = err
	}
	return err
}

// RequireAbsent makes the batch fail with ErrPrecondition, and change nothing,
// if the key has a value at the moment of the write. It fails with [ErrInvalid] if
// there can be no such key.
func (b *Batch) RequireAbsent(key []byte) error {
	if err := checkKey(key); err != nil {
		return b.refuse(withKey("require absent", key, err))
	}
	b.conditions = append(b.conditions, condition{key: key})
	return nil
}

// RequireVersion does so unless the key has this very version of its value. It
// fails with [ErrInvalid] also for the zero Version, which no value has.
func (b *Batch) RequireVersion(key []byte, v Version) error {
	err := checkKey(key)
	if err == nil && v == (Version{}) {
		err = invalid{errors.New("no value has the zero Version, RequireAbsent requires that there is none")}
	}
	if err != nil {
		return b.refuse(withKey("require version", key, err))
	}
	b.conditions = append(b.conditions, condition{key, v})
	return nil
}

// Len is the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Reset empties the batch for another use.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops = b.ops[:0]
	b.conditions, b.invalid = nil, nil
}

// Result tells what became of operation i, once Apply has returned nil.
func (b *Batch) Result(i int) Result { return b.ops[i].result }
