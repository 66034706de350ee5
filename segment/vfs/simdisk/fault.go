package simdisk

import "fmt"

// Short is an error for [Disk.Fail]: a WriteVec for which it is returned
// writes N bytes, at most what it was given, and reports no error.
type Short struct{ N int }

func (s Short) Error() string { return fmt.Sprintf("short write of %d bytes", s.N) }

// Ops returns the number of calls so far that may change the disk, including
// those that failed.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Count returns the number of calls of one operation so far.
func (d *Disk) Count(op string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[op]
}

// OnOp sets a function that is called after every call that may change the
// disk, with the number and name of the operation. It may use the disk, so it
// can take a crash image at every step.
func (d *Disk) OnOp(f func(n int, op string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onOp = f
}

// Fail sets a function that is called before every operation, with the number
// the operation has; one that only reads has the number of the last that did
// not. It may use the disk.
//
// If it returns an error the operation has no effect and returns it, with the
// name of the file. There are two exceptions. WriteVec takes [Short] to mean a
// short write. A failed Datasync or Sync loses what it should have made
// durable: reads go on to show it, and a later sync succeeds and does not
// write it, until a crash or DropCaches brings back what was durable before.
func (d *Disk) Fail(f func(op, name string, n int) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

// DropCaches makes every file read as it lies on the disk, apart from what
// waits to be written. Sizes stay, so bytes lost beyond the durable end of a
// file read as zeros. Mappings don't notice.
func (d *Disk) DropCaches() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.names {
		e.ino.dropCache()
	}
}

// begin opens an operation that may change the disk: it counts it and asks
// whether it is to fail. Every begin is followed by an end.
func (d *Disk) begin(op, name string) (n int, err error) {
	d.mu.Lock()
	d.ops++
	d.count(op)
	n, fail := d.ops, d.fail
	d.mu.Unlock()
	return n, ask(fail, op, name, n)
}

// end runs the hook. It is deferred before the disk is locked, so that it runs
// after the disk is unlocked.
func (d *Disk) end(n int, op string) {
	d.mu.Lock()
	hook := d.onOp
	d.mu.Unlock()
	if hook != nil {
		apart(func() { hook(n, op) })
	}
}

// reading opens an operation that changes nothing.
func (d *Disk) reading(op, name string) error {
	d.mu.Lock()
	d.count(op)
	n, fail := d.ops, d.fail
	d.mu.Unlock()
	return ask(fail, op, name, n)
}

// count counts an operation. The caller holds mu.
func (d *Disk) count(op string) {
	if d.counts == nil {
		d.counts = make(map[string]int)
	}
	d.counts[op]++
}

func ask(fail func(op, name string, n int) error, op, name string, n int) error {
	if fail == nil {
		return nil
	}
	if err := fail(op, name, n); err != nil {
		return pathError(op, name, err)
	}
	return nil
}
