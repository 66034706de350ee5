package blockdisk

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/segment/vfs"
)

// The test program is three processes. The first starts the second in mount
// points of its own, so that whatever happens no mount and no loop device
// outlives the test. The second serves the disk and does everything else but
// the workload, which is the third: a page of the disk that one process maps
// and serves too would make it wait for itself.
const partEnv = "CROWFLY_BLOCKDISK_PART"

func TestMain(m *testing.M) {
	switch os.Getenv(partEnv) {
	case "workload":
		if err := workloadProcess(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "":
		if os.Geteuid() == 0 {
			os.Exit(inOwnNamespace())
		}
	}
	os.Exit(m.Run())
}

// inOwnNamespace runs this program again.
func inOwnNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), partEnv+"=test")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := run(cmd, syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount points of its own:", err)
		return 1
	}
	return 0
}

// run runs a process that dies with this one.
func run(cmd *exec.Cmd, attr syscall.SysProcAttr) error {
	runtime.LockOSThread() // the death that counts is that of the thread
	defer runtime.UnlockOSThread()
	attr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = &attr
	return cmd.Run()
}

// job is what the workload processes do and have done.
type job struct {
	Dir    string // of the store
	Seed   uint64
	Killed bool // leave the store open at the end
	Writes int  // of each writer in a round

	From, To int // rounds
	Start    uint64
	Ops      []*fileOp
	Journals []journal
}

// work does a job in a process of its own, which goes on with what the job has.
func work(t *testing.T, j *job, position *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job")
	check(t, j.save(path))
	cmd := exec.Command("/proc/self/exe", path)
	cmd.Env = append(os.Environ(), partEnv+"=workload")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{position}
	check(t, run(cmd, syscall.SysProcAttr{}))
	*j = job{}
	check(t, j.load(path))
}

func workloadProcess(path string) error {
	var j job
	if err := j.load(path); err != nil {
		return err
	}
	counter, err := mapCounter(os.NewFile(3, "position"))
	if err != nil {
		return err
	}
	dir, err := vfs.OpenDir(j.Dir, true)
	if err != nil {
		return err
	}
	if j.Start == 0 {
		j.Start = counter.Load()
	}
	r := newRecorder(dir, counter.Load, j.Ops)
	w := &workload{fs: r, position: counter.Load, seed: j.Seed, writes: j.Writes, journals: j.Journals}
	last := j.To - 1
	if !j.Killed {
		last = j.To
	}
	err = w.rounds(j.From, last)
	if err == nil && j.Killed {
		_, err = w.round(last)
	}
	if err != nil {
		return err
	}
	j.Ops = r.freeze()
	return j.save(path)
}

func (j *job) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(gob.NewEncoder(f).Encode(j), f.Close())
}

func (j *job) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return gob.NewDecoder(f).Decode(j)
}
