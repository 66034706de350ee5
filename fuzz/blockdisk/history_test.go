package blockdisk

import (
	"slices"
	"sync"

	"github.com/crowfly/crowfly/segment/vfs"
)

// moment is when a file operation began or ended: its place among the
// beginnings and ends of all operations, and the position of the log of the
// disk. The zero value is never.
type moment struct {
	Seq      int
	Position uint64
}

type opKind uint8

const (
	opFailed opKind = iota // had no effect
	opCreate
	opRename
	opRemove
	opSyncDir
	opWrite
	opSync
)

// fileOp is one file operation that matters for what a power cut leaves.
type fileOp struct {
	Kind       opKind
	Name       string // created, renamed to, or removed
	File       int    // the index of the operation that created it
	Off        int
	Data       []byte
	Begin, End moment
}

// doneBy reports whether the operation had ended when the log was at cut.
func (o *fileOp) doneBy(cut uint64) bool { return o.End.Seq > 0 && o.End.Position <= cut }

// recorder is an FS that passes everything on and notes what changes the disk.
type recorder struct {
	vfs.FS
	position func() uint64
	after    func() // if set, called after every operation, of which there is one at a time then
	serial   sync.Mutex

	running sync.RWMutex // held for reading by every operation

	mu    sync.Mutex
	seq   int
	ops   []*fileOp
	names map[string]int // the files that exist
}

// newRecorder goes on with the operations of an earlier one on the same
// directory.
func newRecorder(fsys vfs.FS, position func() uint64, earlier []*fileOp) *recorder {
	r := &recorder{FS: fsys, position: position, ops: earlier, names: make(map[string]int)}
	for _, o := range earlier {
		r.seq = max(r.seq, o.Begin.Seq, o.End.Seq)
		r.rename(o)
	}
	return r
}

// freeze waits for the operations under way and lets no more begin.
func (r *recorder) freeze() []*fileOp {
	r.running.Lock()
	return r.ops
}

// do notes an operation around the call that does it.
func (r *recorder) do(o *fileOp, call func() error) error {
	r.running.RLock()
	defer r.running.RUnlock()
	if r.after != nil {
		r.serial.Lock()
		defer r.serial.Unlock()
		defer r.after()
	}
	r.begin(o)
	err := call()
	r.end(o, err)
	return err
}

func (r *recorder) begin(o *fileOp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch o.Kind {
	case opCreate:
		o.File = len(r.ops)
	case opRemove:
		o.File = r.names[o.Name]
	}
	r.seq++
	o.Begin = moment{r.seq, r.position()}
	r.ops = append(r.ops, o)
}

func (r *recorder) end(o *fileOp, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	o.End = moment{r.seq, r.position()}
	if err != nil {
		o.Kind = opFailed
	}
	r.rename(o)
}

// rename keeps up the names of files. The caller holds mu.
func (r *recorder) rename(o *fileOp) {
	switch o.Kind {
	case opCreate:
		r.names[o.Name] = o.File
	case opRename:
		for name, file := range r.names {
			if file == o.File {
				delete(r.names, name)
			}
		}
		r.names[o.Name] = o.File
	case opRemove:
		delete(r.names, o.Name)
	}
}

// file returns the number of the file of that name.
func (r *recorder) file(name string) (n int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok = r.names[name]
	return n, ok
}

func (r *recorder) Create(name string) (f vfs.File, err error) {
	o := &fileOp{Kind: opCreate, Name: name}
	err = r.do(o, func() error {
		f, err = r.FS.Create(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &recordedFile{f, r, o.File}, nil
}

func (r *recorder) Open(name string) (vfs.File, error) {
	f, err := r.FS.Open(name)
	if err != nil {
		return nil, err
	}
	n, _ := r.file(name)
	return &recordedFile{f, r, n}, nil
}

func (r *recorder) Rename(from, to string) error {
	n, _ := r.file(from)
	return r.do(&fileOp{Kind: opRename, Name: to, File: n}, func() error { return r.FS.Rename(from, to) })
}

func (r *recorder) Remove(name string) error {
	return r.do(&fileOp{Kind: opRemove, Name: name}, func() error { return r.FS.Remove(name) })
}

func (r *recorder) SyncDir() error {
	return r.do(&fileOp{Kind: opSyncDir}, r.FS.SyncDir)
}

func (r *recorder) Lock(name string) (unlock func() error, err error) {
	if _, ok := r.file(name); ok {
		return r.FS.Lock(name)
	}
	err = r.do(&fileOp{Kind: opCreate, Name: name}, func() error {
		unlock, err = r.FS.Lock(name)
		return err
	})
	return unlock, err
}

// recordedFile notes writes and syncs.
type recordedFile struct {
	vfs.File
	recorder *recorder
	n        int
}

func (f *recordedFile) WriteVec(bufs [][]byte, off int64) (n int, err error) {
	o := &fileOp{Kind: opWrite, File: f.n, Off: int(off), Data: slices.Concat(bufs...)}
	err = f.recorder.do(o, func() error {
		n, err = f.File.WriteVec(bufs, off)
		o.Data = o.Data[:n]
		return err
	})
	return n, err
}

func (f *recordedFile) Datasync() error { return f.sync(f.File.Datasync) }

func (f *recordedFile) Sync() error { return f.sync(f.File.Sync) }

func (f *recordedFile) sync(call func() error) error {
	return f.recorder.do(&fileOp{Kind: opSync, File: f.n}, call)
}
