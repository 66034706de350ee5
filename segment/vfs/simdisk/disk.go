// Package simdisk is a disk in memory for crash tests.
//
// It implements [vfs.FS] and keeps apart what a power cut is sure to leave
// from what the page cache merely shows. At any moment [Disk.Crash] makes an
// independent disk as a power cut at that moment could leave it, as bad as
// POSIX allows: unsynced sectors survive one by one, sizes and bytes
// separately, names without contents and contents without names. The same
// source of random numbers gives the same disk.
//
//	Disk   names, durable names, pending directory operations
//	         |             |
//	        inode  durable bytes, cached bytes, pending writes
//
// Slices of bytes, writes and names are never changed in place below their
// length, only appended to or replaced. So disks share them, and a crash costs
// what is pending and not what is stored.
package simdisk

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Operations as [Disk.Count], [Disk.OnOp] and [Disk.Fail] name them. The first
// group changes the disk.
const (
	OpCreate    = "Create"
	OpWriteVec  = "WriteVec"
	OpDatasync  = "Datasync"
	OpSync      = "Sync"
	OpReserve   = "Reserve"
	OpTrim      = "Trim"
	OpRename    = "Rename"
	OpRemove    = "Remove"
	OpTrash     = "Trash"
	OpMakeTrash = "MakeTrash"
	OpSyncDir   = "SyncDir"
	OpLock      = "Lock" // changes the disk only if it creates the file

	OpOpen   = "Open"
	OpReadAt = "ReadAt"
	OpList   = "List"
	OpSize   = "Size"
	OpMap    = "Map"
	OpLocked = "Locked"
)

// Disk is one simulated directory. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	names   names    // what programs see
	durable names    // what a power cut is sure to leave
	pending []change // operations on names since the last SyncDir, in order
	freed   [][]byte // contents of the last removed files: garbage for a crash
	size    int64    // 0: as large as memory

	ops    int
	counts map[string]int
	onOp   func(n int, op string)
	fail   func(op, name string, n int) error
	clock  clock

	handles *Handles // nil before the first file is opened
}

var _ vfs.FS = (*Disk)(nil)

// New returns an empty disk.
func New() *Disk { return &Disk{} }

// Path implements [vfs.FS].
func (d *Disk) Path() string { return "simdisk" }

// Exists implements [vfs.FS]. A simulated disk is never removed.
func (d *Disk) Exists() error { return nil }

// Create implements [vfs.FS].
func (d *Disk) Create(name string) (vfs.File, error) {
	n, err := d.begin(OpCreate, name)
	defer d.end(n, OpCreate)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names.get(name) != nil {
		return nil, pathError(OpCreate, name, fs.ErrExist)
	}
	if d.left() == 0 {
		return nil, pathError(OpCreate, name, syscall.ENOSPC)
	}
	return d.newFile(d.create(name), name, true), nil
}

// create adds an empty file. The caller holds mu.
func (d *Disk) create(name string) *inode {
	ino := &inode{}
	d.change(change{kind: created, name: name, ino: ino})
	return ino
}

// change does a change to the names and leaves it pending. The caller holds mu.
func (d *Disk) change(c change) {
	d.names = c.apply(d.names)
	d.pending = append(d.pending, c)
}

// Open implements [vfs.FS].
func (d *Disk) Open(name string) (vfs.File, error) {
	if err := d.reading(OpOpen, name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		return nil, pathError(OpOpen, name, fs.ErrNotExist)
	}
	return d.newFile(ino, name, false), nil
}

// Rename implements [vfs.FS].
func (d *Disk) Rename(from, to string) error {
	n, err := d.begin(OpRename, from)
	defer d.end(n, OpRename)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(from)
	if ino == nil {
		return pathError(OpRename, from, fs.ErrNotExist)
	}
	if d.names.get(to) != nil {
		return pathError(OpRename, to, fs.ErrExist)
	}
	d.change(change{kind: renamed, name: to, ino: ino})
	return nil
}

// Remove implements [vfs.FS].
func (d *Disk) Remove(name string) error {
	n, err := d.begin(OpRemove, name)
	defer d.end(n, OpRemove)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		return pathError(OpRemove, name, fs.ErrNotExist)
	}
	d.change(change{kind: removed, name: name, ino: ino})
	d.free(ino)
	return nil
}

// MakeTrash implements [vfs.FS].
func (d *Disk) MakeTrash() error {
	n, err := d.begin(OpMakeTrash, vfs.TrashDir)
	defer d.end(n, OpMakeTrash)
	return err
}

// Trash implements [vfs.FS]. A file in the trash is one whose name has a slash
// in it: ReadFile reads it, Names does not list it.
func (d *Disk) Trash(name string) (string, error) {
	n, err := d.begin(OpTrash, name)
	defer d.end(n, OpTrash)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		return "", pathError(OpTrash, name, fs.ErrNotExist)
	}
	to := trashPrefix + name
	for i := 1; d.names.get(to) != nil; i++ {
		to = fmt.Sprintf("%s%s.%d", trashPrefix, name, i)
	}
	d.change(change{kind: renamed, name: to, ino: ino})
	return to, nil
}

// trashPrefix begins the names of the files in the trash.
const trashPrefix = vfs.TrashDir + "/"

// Trashed returns the names of the files in the trash, sorted.
func (d *Disk) Trashed() []string {
	return d.list(func(name string) bool { return strings.HasPrefix(name, trashPrefix) })
}

// free remembers what was on the blocks of a removed file.
func (d *Disk) free(ino *inode) {
	const most = 4
	if len(ino.durable) == 0 {
		return
	}
	d.freed = append(d.freed, ino.durable)
	d.freed = d.freed[max(0, len(d.freed)-most):]
}

// Trim implements [vfs.FS].
func (d *Disk) Trim(name string) error {
	n, err := d.begin(OpTrim, name)
	defer d.end(n, OpTrim)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		return pathError(OpTrim, name, fs.ErrNotExist)
	}
	ino.reserved = 0
	return nil
}

// List implements [vfs.FS].
func (d *Disk) List() ([]string, error) {
	if err := d.reading(OpList, ""); err != nil {
		return nil, err
	}
	return d.Names(), nil
}

// SyncDir implements [vfs.FS]. If it is made to fail nothing becomes durable
// and all stays pending.
func (d *Disk) SyncDir() error {
	n, err := d.begin(OpSyncDir, "")
	defer d.end(n, OpSyncDir)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = d.names
	d.pending = nil
	return nil
}

// Lock implements [vfs.FS].
func (d *Disk) Lock(name string) (unlock func() error, err error) {
	if d.exists(name) {
		err = d.reading(OpLock, name)
	} else {
		var n int
		n, err = d.begin(OpLock, name)
		defer d.end(n, OpLock)
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		ino = d.create(name)
	}
	if ino.locked {
		return nil, pathError(OpLock, name, vfs.ErrLocked)
	}
	ino.locked = true
	return func() error { return d.unlock(ino, name) }, nil
}

func (d *Disk) unlock(ino *inode, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !ino.locked {
		return pathError("Unlock", name, fs.ErrClosed)
	}
	ino.locked = false
	return nil
}

// Locked implements [vfs.FS].
func (d *Disk) Locked(name string) (bool, error) {
	if err := d.reading(OpLocked, name); err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	return ino != nil && ino.locked, nil
}

// Resize makes the disk one of so many bytes, or of 0, as it is at first, as
// large as memory. Files take what they have or what was set aside for them,
// whichever is more. A file without a name takes nothing, even if it is open.
func (d *Disk) Resize(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = bytes
}

// Free implements [vfs.FS].
func (d *Disk) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left(), nil
}

// left is the room on the disk. The caller holds mu.
func (d *Disk) left() int64 {
	if d.size == 0 {
		return math.MaxInt64
	}
	left := d.size
	for _, e := range d.names {
		left -= e.ino.takes()
	}
	return max(left, 0)
}

// grow fails if there is no room for a file that reaches to end. The caller
// holds mu.
func (d *Disk) grow(ino *inode, end int64) error {
	if d.size != 0 && end-ino.takes() > d.left() {
		return syscall.ENOSPC
	}
	return nil
}

// AfterFunc implements [vfs.FS] with the disk's own clock, which only Advance
// moves.
func (d *Disk) AfterFunc(delay time.Duration, f func()) (stop func() bool) {
	return d.clock.afterFunc(delay, f)
}

// Now implements [vfs.FS].
func (d *Disk) Now() time.Time { return d.clock.time() }

// Advance moves the clock and calls what is due, in order, in the calling
// goroutine. What those functions start and is due within delay runs too.
func (d *Disk) Advance(delay time.Duration) { d.clock.advance(delay) }

// Names returns the names of all files, sorted. Those in the trash don't count.
func (d *Disk) Names() []string {
	return d.list(func(name string) bool { return !strings.HasPrefix(name, trashPrefix) })
}

func (d *Disk) list(wanted func(name string) bool) (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.names {
		if wanted(e.name) {
			list = append(list, e.name)
		}
	}
	return list
}

// ReadFile returns a copy of what a program reads from the named file.
func (d *Disk) ReadFile(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		return nil, pathError("ReadFile", name, fs.ErrNotExist)
	}
	return slices.Clone(ino.cached), nil
}

// Sum is a checksum of all names and of what programs read under them. Two
// disks that Crash made of one are the same if it is.
func (d *Disk) Sum() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var sum xxhash.Digest
	sum.Reset()
	for _, e := range d.names {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(e.ino.cached)))
		sum.WriteString(e.name + "\x00")
		sum.Write(size[:])
		sum.Write(e.ino.cached)
	}
	return sum.Sum64()
}

// WriteFile gives the named file, which need not exist, these contents at
// once and durably, its name included. It is for doing damage: no operation is
// counted, and mappings don't notice.
func (d *Disk) WriteFile(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := d.names.get(name)
	if ino == nil {
		ino = &inode{}
		d.names = d.names.put(name, ino)
	}
	ino.cached = slices.Clone(data)
	ino.durable = slices.Clip(ino.cached)
	ino.pending, ino.lost = nil, false
	d.durable = d.durable.without(ino).put(name, ino)
}

func (d *Disk) exists(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names.get(name) != nil
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: "simdisk/" + name, Err: err}
}
