package blockdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileSystem is one of the real ones.
type fileSystem struct {
	name string
	size int64 // of the disk
	mkfs []string
	data string // for mount
}

var fileSystems = []fileSystem{
	{"ext4", 64 << 20, []string{"mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}, ""},
	// An image has the UUID of the disk it comes from.
	{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "-f", "-K"}, "nouuid"},
	{"btrfs", 256 << 20, []string{"mkfs.btrfs", "-q", "-f", "-K"}, ""},
}

// attach sets a loop device on a file. The kernel gives it back on its own
// when the returned file is closed and nothing is mounted from it.
func attach(backing int) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	const tries = 20 // others may be faster
	for range tries {
		var n int
		if n, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, fmt.Errorf("free loop device: %w", err)
		}
		var dev *os.File
		if dev, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0); err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), &config); err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return nil, fmt.Errorf("set up loop device: %w", err)
}

// make makes a file system on a device.
func (f *fileSystem) make(dev *os.File) error {
	cmd := exec.Command(f.mkfs[0], append(f.mkfs[1:], dev.Name())...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", f.mkfs[0], err, out)
	}
	return nil
}

// mount mounts a device, which it closes, until the end of the test at the
// latest.
func (f *fileSystem) mount(t *testing.T, dev *os.File, dir string) error {
	defer dev.Close()
	if err := unix.Mount(dev.Name(), dir, f.name, 0, f.data); err != nil {
		return fmt.Errorf("mount %s: %w", f.name, err)
	}
	t.Cleanup(func() {
		if mounted(dir) {
			unmount(t, dir)
		}
	})
	return nil
}

// mounted reports whether dir is another file system than its parent.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	return unix.Stat(dir, &here) == nil && unix.Stat(dir+"/..", &above) == nil && here.Dev != above.Dev
}

// unmount unmounts. Mappings and files that only wait for the garbage
// collector keep a file system busy.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var err error
	const tries = 200
	for range tries {
		if err = unix.Unmount(dir, 0); err != unix.EBUSY {
			break
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Errorf("unmount %s: %v", dir, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
