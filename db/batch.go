package db

// Batch collects puts and deletes that are applied together: all of them or
// none, also after a crash, and no reader sees a part. It refers to the keys
// and values it is given, which must not change until Apply returns. The zero
// Batch is empty and ready. It is not safe for concurrent use.
type Batch struct {
	ops        []op
	conditions []condition
}

// Result is what became of one operation of an applied batch.
type Result struct {
	Version Version // of the value written; zero for a delete
	Existed bool    // the key had a value before
}

// Put adds a put. The metadata may be nil.
func (b *Batch) Put(key, value []byte, m *Metadata) {
	b.ops = append(b.ops, newPut(key, value, m))
}

// Delete adds a delete. Deleting a key that is not there is not an error.
func (b *Batch) Delete(key []byte) { b.ops = append(b.ops, newDelete(key)) }

// RequireAbsent makes the batch fail with ErrPrecondition, and change nothing,
// if the key has a value at the moment of the write.
func (b *Batch) RequireAbsent(key []byte) {
	b.conditions = append(b.conditions, condition{key: key})
}

// RequireVersion does so unless the key has this very version of its value.
func (b *Batch) RequireVersion(key []byte, v Version) {
	b.conditions = append(b.conditions, condition{key, v})
}

// Len is the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Reset empties the batch for another use.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops = b.ops[:0]
	b.conditions = nil
}

// Result tells what became of operation i, once Apply has returned nil.
func (b *Batch) Result(i int) Result { return b.ops[i].result }
