package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Dir is a real directory as an [FS]. It is the directory that OpenDir found at
// the path, whatever becomes of that path: every method works through a
// descriptor of the directory. When the directory is moved, the Dir moves with
// it, and a directory that takes its place is not touched.
type Dir struct {
	// Collect forces a collection, see AfterCollection. It is set before the Dir
	// is used, or nil for none.
	Collect func()

	files  atomic.Int64          // that are open or mapped, as far as collections have shown
	path   string                // when it was opened, for messages
	root   *os.Root              // closed by the collector, like handle
	handle *os.File              // the same directory
	lost   atomic.Pointer[error] // of a SyncDir that failed
	inVain bool                  // the file system writes elsewhere what Reserve has set aside, see writeInPlace
}

var _ FS = (*Dir)(nil)

// OpenDir opens the directory at path. With create it is made first if it
// does not exist (its parent must), and its name is durable on return. A
// directory that is missing or can't be read is an error that names the path.
func OpenDir(path string, create bool) (*Dir, error) {
	if path == "" { // for filepath.Abs that is the working directory
		return nil, &fs.PathError{Op: "open", Path: `""`, Err: fs.ErrInvalid}
	}
	// Absolute, for messages.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if create {
		if err := makeDir(path); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, renamed(err, "open", path)
	}
	handle, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, renamed(err, "open", path)
	}
	return &Dir{path: path, root: root, handle: handle, inVain: copiesOnWrite(handle)}, nil
}

// makeDir makes the directory unless it exists, and makes its name durable.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	created := err == nil
	// An empty directory that exists may be the work of a process that was
	// killed before it could sync. One with files in it is not.
	if !created && !isEmptyDir(path) {
		return nil
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		if !created && errors.Is(err, fs.ErrPermission) {
			return nil // a mount point or the like, prepared by somebody else
		}
		return err
	}
	defer parent.Close()
	return syncDir(parent)
}

func isEmptyDir(path string) bool {
	d, err := os.Open(path)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	return err == io.EOF
}

// Path implements [FS]. It is absolute.
func (d *Dir) Path() string { return d.path }

// Create implements [FS].
func (d *Dir) Create(name string) (File, error) {
	f, err := d.open("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	if d.inVain {
		writeInPlace(f.handle.Load())
	}
	return f, nil
}

// Open implements [FS].
func (d *Dir) Open(name string) (File, error) {
	f, err := d.open("open", name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// open relies on package os for O_CLOEXEC: no child process inherits a file.
func (d *Dir) open(op, name string, flag int) (*file, error) {
	if err := d.plain(op, name); err != nil {
		return nil, err
	}
	f, err := d.openRetrying(func() (*os.File, error) { return d.root.OpenFile(name, flag|largeFile, 0o644) })
	if err != nil {
		return nil, d.fail(err, op, name)
	}
	return newFile(f, d, name), nil
}

// Rename implements [FS].
func (d *Dir) Rename(from, to string) error {
	err := errors.Join(d.plain("rename", from), d.plain("rename", to))
	if err == nil {
		err = d.renameExclusive(from, d.handle, "", to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: d.join(from), New: d.join(to), Err: d.cause(err)}
	}
	return nil
}

// linkThenUnlink is a rename that refuses to replace, for systems without a
// call for it. A crash between its steps leaves both names, which is harmless:
// they are the same file, and a leftover temporary name is removed at open.
func (d *Dir) linkThenUnlink(from, to string) error {
	if err := d.root.Link(from, to); err != nil {
		return err
	}
	return d.root.Remove(from)
}

// Remove implements [FS].
func (d *Dir) Remove(name string) error {
	if err := d.plain("remove", name); err != nil {
		return err
	}
	return d.fail(d.root.Remove(name), "remove", name)
}

// Trim implements [FS].
func (d *Dir) Trim(name string) error {
	f, err := d.open("trim", name, os.O_RDWR)
	if err != nil {
		return err
	}
	return errors.Join(f.Trim(), f.Close())
}

// MakeTrash implements [FS]. A link would lead out of the directory.
func (d *Dir) MakeTrash() error {
	err := d.root.Mkdir(TrashDir, 0o755)
	if err == nil {
		return d.SyncDir()
	}
	if errors.Is(err, fs.ErrExist) {
		var info fs.FileInfo
		info, err = d.root.Lstat(TrashDir)
		if err == nil && !info.IsDir() {
			err = syscall.ENOTDIR
		}
	}
	return d.fail(err, "mkdir", TrashDir)
}

// Trash implements [FS]. The file is in the trash durably before SyncDir makes
// its old name go, so that no crash leaves it in neither place.
func (d *Dir) Trash(name string) (string, error) {
	if err := d.plain("trash", name); err != nil {
		return "", err
	}
	if err := d.MakeTrash(); err != nil {
		return "", err
	}
	trash, err := d.openRetrying(func() (*os.File, error) { return d.root.Open(TrashDir) })
	if err != nil {
		return "", d.fail(err, "open", TrashDir)
	}
	defer trash.Close()
	to := name
	for i := 1; ; i++ {
		err := d.renameExclusive(name, trash, TrashDir, to)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", d.fail(err, "trash", name)
		}
		to = fmt.Sprintf("%s.%d", name, i)
	}
	return filepath.Join(TrashDir, to), syncDir(trash)
}

// List implements [FS]. Directories, links and special files don't count.
func (d *Dir) List() ([]string, error) {
	dir, err := d.openRetrying(d.self)
	if err != nil {
		return nil, d.fail(err, "open", ".")
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, d.fail(err, "read", ".")
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Exists implements [FS].
func (d *Dir) Exists() error {
	if isUnlinked(d.handle) {
		return fmt.Errorf("%s: %w", d.path, ErrRemoved)
	}
	return nil
}

// SyncDir implements [FS]. Once it has failed it does so for ever: the kernel tells
// of an error once only, and the names that were lost may have been another's.
func (d *Dir) SyncDir() error {
	if failed := d.lost.Load(); failed != nil {
		return *failed
	}
	err := syncDir(d.handle)
	if err != nil {
		d.lost.Store(&err)
	}
	return err
}

func syncDir(dir *os.File) error {
	// Windows has no flush for a directory; NTFS journals names itself.
	if runtime.GOOS == "windows" {
		return nil
	}
	return dir.Sync()
}

// Lock implements [FS]. The lock lasts as long as unlock is reachable and has
// not been called.
func (d *Dir) Lock(name string) (unlock func() error, err error) {
	if err := d.plain("lock", name); err != nil {
		return nil, err
	}
	return d.lockFile(name)
}

// Locked implements [FS].
func (d *Dir) Locked(name string) (bool, error) {
	if err := d.plain("lock", name); err != nil {
		return false, err
	}
	return d.probeLock(name)
}

// Free implements [FS].
func (d *Dir) Free() (int64, error) {
	n, err := freeBytes(d.handle)
	return n, d.fail(err, "statfs", ".")
}

// AfterFunc implements [FS].
func (d *Dir) AfterFunc(delay time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(delay, f).Stop
}

// Now implements [FS].
func (d *Dir) Now() time.Time { return time.Now() }

// plain refuses whatever is not a plain name, so that a damaged list of files
// can't lead out of the directory.
func (d *Dir) plain(op, name string) error {
	if !filepath.IsLocal(name) || name == "." || strings.ContainsAny(name, `/\`) {
		return &os.PathError{Op: op, Path: d.join(name), Err: fs.ErrInvalid}
	}
	return nil
}

// join is the path of a file for messages.
func (d *Dir) join(name string) string { return filepath.Join(d.path, name) }

// fail names the file in an error of one of the calls through a descriptor,
// which know its plain name only.
func (d *Dir) fail(err error, op, name string) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: d.join(name), Err: d.cause(err)}
}

// cause is the error without the names that a call through a descriptor gave
// it. A name that can't be found or made in a directory without a name is due to
// that.
func (d *Dir) cause(err error) error {
	err = bare(err)
	if errors.Is(err, fs.ErrNotExist) && isUnlinked(d.handle) {
		return fmt.Errorf("%w: %w", ErrRemoved, err)
	}
	return err
}

// bare unwraps what package os says of its call.
func bare(err error) error {
	switch e := err.(type) {
	case *os.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}

func renamed(err error, op, path string) error {
	return &os.PathError{Op: op, Path: path, Err: bare(err)}
}
