package blockdisk

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// disk is a block device image, served as a file by FUSE, that keeps a log of
// all writes and flushes. Everything that its user writes passes through here
// before it is acknowledged, so this process must neither touch a file on it
// through a mapping nor wait for it with a lock held that the server needs.
type disk struct {
	path     string
	counter  *os.File       // holds position, to be shared with other processes
	position *atomic.Uint64 // the length of the log

	mu    sync.Mutex
	bytes []byte
	log   []request
}

const (
	diskName  = "crowfly-blockdisk" // among the mounts
	imageName = "disk.img"
)

// serveDisk mounts a disk of that size, all zeros, until the end of the test.
func serveDisk(t *testing.T, size int64) *disk {
	t.Helper()
	counter := memoryFile(t, int64(os.Getpagesize()))
	shared, err := mapCounter(counter)
	check(t, err)
	bytes, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	check(t, err)
	d := &disk{counter: counter, position: shared, bytes: bytes}

	dir := t.TempDir()
	server, err := fs.Mount(dir, &root{disk: d}, &fs.Options{MountOptions: fuse.MountOptions{
		FsName: diskName, MaxWrite: 1 << 20, DirectMountStrict: true,
	}})
	check(t, err)
	check(t, closeOnExec("/dev/fuse"))
	t.Cleanup(func() {
		unmount(t, dir)
		server.Wait()
		unix.Munmap(bytes)
	})
	d.path = dir + "/" + imageName
	return d
}

// closeOnExec keeps an open file from the processes that are started. As long as
// one of them has it, requests to a server that has died wait for ever.
func closeOnExec(path string) error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if target, _ := os.Readlink(dir + "/" + e.Name()); target == path {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				return err
			}
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// mapCounter maps the counter that a file holds.
func mapCounter(f *os.File) (*atomic.Uint64, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map counter: %w", err)
	}
	return (*atomic.Uint64)(unsafe.Pointer(&b[0])), nil
}

// memoryFile is a file on no disk that goes with its last user.
func memoryFile(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("crowfly-blockdisk", unix.MFD_CLOEXEC)
	check(t, err)
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() { f.Close() })
	check(t, f.Truncate(size))
	return f
}

// requests returns the log so far.
func (d *disk) requests() []request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clip(d.log)
}

// add appends to the log. The caller holds mu.
func (d *disk) add(r request) {
	d.log = append(d.log, r)
	d.position.Store(uint64(len(d.log)))
}

// root is the directory with the image.
type root struct {
	fs.Inode
	disk *disk
}

func (r *root) OnAdd(ctx context.Context) {
	image := r.NewPersistentInode(ctx, &image{disk: r.disk}, fs.StableAttr{Mode: syscall.S_IFREG})
	r.AddChild(imageName, image, false)
}

// image is the file. It keeps nothing but the bytes.
type image struct {
	fs.Inode
	disk *disk
}

var (
	_ fs.NodeOnAdder   = (*root)(nil)
	_ fs.NodeGetattrer = (*image)(nil)
	_ fs.NodeOpener    = (*image)(nil)
	_ fs.NodeReader    = (*image)(nil)
	_ fs.NodeWriter    = (*image)(nil)
	_ fs.NodeFsyncer   = (*image)(nil)
)

func (i *image) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = 0o600
	out.Size = uint64(len(i.disk.bytes))
	return fs.OK
}

// Open makes the kernel pass every request on as it is.
func (i *image) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, fs.OK
}

func (i *image) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	i.disk.mu.Lock()
	defer i.disk.mu.Unlock()
	n := 0
	if off < int64(len(i.disk.bytes)) {
		n = copy(dest, i.disk.bytes[off:])
	}
	return fuse.ReadResultData(dest[:n]), fs.OK
}

func (i *image) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	d := i.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(data)) > int64(len(d.bytes)) {
		return 0, syscall.ENOSPC
	}
	copy(d.bytes[off:], data)
	r := request{Off: off, Data: slices.Clone(data)}
	if isZero(data) {
		r = request{Off: off, Zeros: len(data)}
	}
	d.add(r)
	return uint32(len(data)), fs.OK
}

func (i *image) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	i.disk.mu.Lock()
	defer i.disk.mu.Unlock()
	i.disk.add(request{})
	return fs.OK
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
