// Package vfs is the only code in crowfly that talks to the operating system
// about files and memory maps.
//
// An [FS] is one store directory: flat, every name a plain file name, and
// beside them a place for what was set aside. Two things implement it. [Dir] is a real directory. The simulated disk in
// package simdisk forgets, tears and reorders whatever was not synced, so that
// everything above can be crashed after every single call made here.
//
// Three rules live in the shape of the interface rather than in anybody's
// memory. There is no truncate: a named file never gets shorter, because
// somebody may have mapped it. Rename never replaces. And nothing here retries
// a failed sync: the kernel marks pages clean after a failed writeback, so a
// second sync succeeds although the bytes are gone.
//
// Memory that does not belong to the Go heap (mappings, hash tables) is freed
// in one way only, see owner.go.
package vfs

import (
	"errors"
	"os"
	"time"
)

// ErrLocked says that another process, or another handle in this one, holds
// the lock. Where the system tells, the error names the process.
var ErrLocked = errors.New("locked by another writer")

// TrashDir is where [FS].Trash puts files.
const TrashDir = "trash"

// ErrNoMaps says that this process has as many mappings as it may or, if it is
// one of 32 bits, as many bytes of them. A collection may give some back.
var ErrNoMaps = errors.New("too many mappings")

// ErrRemoved says that the directory of an [FS] was removed: what is written to
// its files from then on goes away with the last descriptor.
var ErrRemoved = errors.New("the directory was removed")

// FS is one flat directory. Its methods are safe for concurrent use. Errors
// wrap the fs.Err* sentinels and syscall errors of the standard library and
// name the file.
type FS interface {
	// Path names the directory in messages.
	Path() string

	// Exists fails with ErrRemoved once the directory has no name any more.
	Exists() error

	// Create makes a new empty file, open for reading and writing. It fails
	// with fs.ErrExist if the name is taken. The name is durable only after
	// SyncDir, the contents only after Datasync or Sync of the file.
	Create(name string) (File, error)

	// Open opens an existing file for reading.
	Open(name string) (File, error)

	// Rename gives a file a new name in one step, durable after SyncDir.
	// It never replaces: fs.ErrExist if the new name is taken.
	Rename(from, to string) error

	// Remove unlinks a name, durable after SyncDir. Open files and mappings
	// keep the contents.
	Remove(name string) error

	// Trim is File.Trim for a file that nobody writes to any more.
	Trim(name string) error

	// MakeTrash makes the directory TrashDir below this one unless it is
	// there, and durable. It fails if something else has that name.
	MakeTrash() error

	// Trash moves a file out of the way, into a directory TrashDir below this
	// one, where it keeps its name or gets a number behind it. It returns the
	// new path, relative to the directory. Durable after SyncDir.
	Trash(name string) (path string, err error)

	// List returns the names of all files, sorted. What is in the trash
	// does not count.
	List() ([]string, error)

	// SyncDir makes every earlier Create, Rename, Remove and Trash durable.
	SyncDir() error

	// Lock takes the exclusive lock on the named file, which it creates if
	// need be and never removes. It fails with ErrLocked at once (within
	// some milliseconds, to let a Locked probe pass).
	Lock(name string) (unlock func() error, err error)

	// Locked reports whether anybody holds the lock now. A file that nobody
	// has made is not locked. It changes nothing on disk.
	Locked(name string) (bool, error)

	// Free is how many bytes the file system has room for.
	Free() (int64, error)

	// AfterFunc calls f in its own goroutine after d, like time.AfterFunc;
	// the simulated disk has its own clock.
	AfterFunc(d time.Duration, f func()) (stop func() bool)

	// Now is the time by the clock of AfterFunc, fit for differences only.
	Now() time.Time
}

// File is an open file of an FS. ReadAt, Size and Map are safe for concurrent
// use; writing belongs to one goroutine at a time. A File that becomes
// unreachable is closed by the collector, so whoever uses OS().Fd() must keep
// the File alive until after the system call.
type File interface {
	// Name is the plain name the file was created or opened under.
	Name() string

	// ReadAt is io.ReaderAt.
	ReadAt(p []byte, off int64) (int, error)

	// WriteVec writes the buffers one after the other at off. Like write(2)
	// it may write less than asked without an error: n says how much.
	WriteVec(bufs [][]byte, off int64) (n int, err error)

	// Datasync makes the contents and the size durable, not the name.
	// After an error nothing is known about bytes written since the last
	// success, and no later call can say more.
	Datasync() error

	// Writeback has the system begin to write [off, off+n) to the disk, where
	// it can, so that a Datasync has less left to wait for. It does not wait
	// and promises nothing, but may report what Datasync would.
	Writeback(off, n int64) error

	// Sync is Datasync with all metadata.
	Sync() error

	// Reserve sets disk blocks aside for [off, off+n) without changing the
	// size, so that later writes there don't run out of space. Where the
	// file system can't, it does nothing and returns nil. After an error a
	// part may be set aside; what was before stays so.
	Reserve(off, n int64) error

	// Trim gives back what Reserve set aside beyond the end of the file.
	// The size stays.
	Trim() error

	// Size is the current length in bytes.
	Size() (int64, error)

	// Map maps [0, size) for reading. The file may be shorter and grow into
	// the mapping; bytes beyond its end must not be touched. It fails with
	// ErrNoMaps if the process has too many mappings.
	Map(size int64) (*Mapping, error)

	// OS is the operating system's file, for sendfile, or nil where there
	// is none, or none any more.
	OS() *os.File

	// Drop lets go of the operating system's file, which is closed as soon as
	// nobody uses it any more: calls under way, and sends from OS, come to
	// their end. Later calls fail with fs.ErrClosed. Mappings stay.
	Drop()

	// Close closes the file. Files that readers share are never closed,
	// only dropped.
	Close() error
}
