package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Dir is a real directory as an [FS].
type Dir struct {
	path   string
	handle *os.File              // for SyncDir; closed by the collector
	lost   atomic.Pointer[error] // of a SyncDir that failed
	inVain bool                  // the file system writes elsewhere what Reserve has set aside, see writeInPlace
}

var _ FS = (*Dir)(nil)

// OpenDir opens the directory at path. With create it is made first if it
// does not exist (its parent must), and its name is durable on return. A
// directory that is missing or can't be read is an error that names the path.
func OpenDir(path string, create bool) (*Dir, error) {
	// Absolute, so that a later change of the working directory by the host
	// program does not move the store.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if create {
		if err := makeDir(path); err != nil {
			return nil, err
		}
	}
	handle, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := handle.Stat()
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if err != nil {
		handle.Close()
		return nil, err
	}
	return &Dir{path: path, handle: handle, inVain: copiesOnWrite(handle)}, nil
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
	path, err := d.join(op, name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flag, 0o644)
	if err != nil {
		return nil, err
	}
	return newFile(f, name), nil
}

// Rename implements [FS].
func (d *Dir) Rename(from, to string) error {
	oldPath, err := d.join("rename", from)
	if err != nil {
		return err
	}
	newPath, err := d.join("rename", to)
	if err != nil {
		return err
	}
	return renameExclusive(oldPath, newPath)
}

// linkThenUnlink is a rename that refuses to replace, for systems without a
// call for it. A crash between its steps leaves both names, which is harmless:
// they are the same file, and a leftover temporary name is removed at open.
func linkThenUnlink(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// Remove implements [FS].
func (d *Dir) Remove(name string) error {
	path, err := d.join("remove", name)
	if err != nil {
		return err
	}
	return os.Remove(path)
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
	dir := filepath.Join(d.path, TrashDir)
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		return d.SyncDir()
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "trash", Path: dir, Err: syscall.ENOTDIR}
	}
	return err
}

// Trash implements [FS]. The file is in the trash durably before SyncDir makes
// its old name go, so that no crash leaves it in neither place.
func (d *Dir) Trash(name string) (string, error) {
	from, err := d.join("trash", name)
	if err != nil {
		return "", err
	}
	if err := d.MakeTrash(); err != nil {
		return "", err
	}
	dir := filepath.Join(d.path, TrashDir)
	to := name
	for i := 1; ; i++ {
		err := renameExclusive(from, filepath.Join(dir, to))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		to = fmt.Sprintf("%s.%d", name, i)
	}
	trash, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer trash.Close()
	return filepath.Join(TrashDir, to), syncDir(trash)
}

// List implements [FS]. Directories, links and special files don't count.
func (d *Dir) List() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
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
	path, err := d.join("lock", name)
	if err != nil {
		return nil, err
	}
	return lockFile(path)
}

// Locked implements [FS].
func (d *Dir) Locked(name string) (bool, error) {
	path, err := d.join("lock", name)
	if err != nil {
		return false, err
	}
	return probeLock(path)
}

// Free implements [FS].
func (d *Dir) Free() (int64, error) { return freeBytes(d.path) }

// AfterFunc implements [FS].
func (d *Dir) AfterFunc(delay time.Duration, f func()) (stop func() bool) {
	return time.AfterFunc(delay, f).Stop
}

// Now implements [FS].
func (d *Dir) Now() time.Time { return time.Now() }

// join refuses whatever is not a plain name, so that a damaged list of files
// can't lead out of the directory.
func (d *Dir) join(op, name string) (string, error) {
	path := filepath.Join(d.path, name)
	if !filepath.IsLocal(name) || name == "." || strings.ContainsAny(name, `/\`) {
		return "", &os.PathError{Op: op, Path: path, Err: fs.ErrInvalid}
	}
	return path, nil
}
