package blockdisk

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/segment/vfs"
)

// The test program is four processes. The first starts the second in mount
// points of its own, so that whatever happens no mount and no loop device
// outlives the test. The second only holds them, see hold. The third serves the
// disk and does everything else but the workload, which is the fourth: a page of
// the disk that one process maps and serves too would make it wait for itself.
const partEnv = "CROWFLY_BLOCKDISK_PART"

func TestMain(m *testing.M) {
	switch os.Getenv(partEnv) {
	case "workload":
		if err := workloadProcess(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "hold":
		os.Exit(hold())
	case "":
		if os.Geteuid() == 0 {
			os.Exit(inOwnNamespace())
		}
	}
	os.Exit(m.Run())
}

// inOwnNamespace runs this program again.
func inOwnNamespace() int {
	temp, err := os.MkdirTemp("", "crowfly-blockdisk-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(temp)
	cmd := again("hold", "TMPDIR="+temp)
	return exitCode(run(cmd, syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}))
}

// hold runs this program again and lives longer. Were the server of the disk the
// last in these mount points, its end would have to unmount what is on the disk,
// and that would wait for the server.
func hold() int {
	parentGone := make(chan os.Signal, 1)
	signal.Notify(parentGone, syscall.SIGTERM)
	cmd := again("test")
	ended := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the death of the parent that counts is that of its thread
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		close(started)
		if err == nil {
			err = cmd.Wait()
		}
		ended <- err
	}()
	<-started
	for {
		select {
		case err := <-ended:
			return exitCode(err)
		case <-parentGone:
			cmd.Process.Kill()
		case <-time.After(200 * time.Millisecond):
			if halfDead(cmd.Process) {
				abortDisks()
			}
		}
	}
}

// halfDead reports whether a process was killed but threads of it are left,
// because they wait for the disk.
func halfDead(p *os.Process) bool {
	if p == nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return err == nil && bytes.HasPrefix(state, []byte("Z"))
}

// abortDisks makes all requests to the disks in these mount points fail.
func abortDisks() {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[0] == diskName {
			unix.Unmount(f[1], unix.MNT_FORCE) // aborts, even if it can't unmount
		}
	}
}

// again is this program as another part.
func again(part string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), partEnv+"="+part), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// run runs a process that is told when this one dies.
func run(cmd *exec.Cmd, attr syscall.SysProcAttr) error {
	runtime.LockOSThread() // the death that counts is that of the thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &attr
	return cmd.Run()
}

// job is what the workload processes do and have done.
type job struct {
	Dir    string // of the file system; what to use are directories in it
	Seed   uint64
	Killed bool // leave the store open at the end
	Writes int  // of each writer in a round

	From, To int // rounds
	Start    uint64
	Journals []journal
	Ops      map[string][]*fileOp // by directory
}

// Directories on the file system.
const (
	storeDir = "store"
	churnDir = "churn"
)

// work does a job in a process of its own, which goes on with what the job has.
func work(t *testing.T, j *job, position *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job")
	check(t, save(path, j))
	cmd := exec.Command("/proc/self/exe", path)
	cmd.Env = append(os.Environ(), partEnv+"=workload")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{position}
	check(t, run(cmd, syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}))
	*j = job{}
	check(t, load(path, j))
}

func workloadProcess(path string) error {
	var j job
	if err := load(path, &j); err != nil {
		return err
	}
	counter, err := mapCounter(os.NewFile(3, "position"))
	if err != nil {
		return err
	}
	store, err := j.recorder(storeDir, counter.Load)
	if err != nil {
		return err
	}
	files, err := j.recorder(churnDir, counter.Load)
	if err != nil {
		return err
	}
	if j.Start == 0 {
		j.Start = counter.Load()
	}
	if err := j.run(store, files); err != nil {
		return err
	}
	j.Ops = map[string][]*fileOp{storeDir: store.freeze(), churnDir: files.freeze()}
	return save(path, j)
}

// recorder opens a directory.
func (j *job) recorder(dir string, position func() uint64) (*recorder, error) {
	d, err := vfs.OpenDir(filepath.Join(j.Dir, dir), true)
	if err != nil {
		return nil, err
	}
	return newRecorder(d, position, j.Ops[dir]), nil
}

// run does the rounds.
func (j *job) run(store, files *recorder) error {
	w := &workload{fs: store, position: store.position, seed: j.Seed, writes: j.Writes, journals: j.Journals}
	c := &churn{fs: files, rng: rand.New(rand.NewPCG(j.Seed, uint64(j.From))), writeBack: writeBack, named: len(files.ops)}
	w.beside = func() error { return errors.Join(c.step(), c.step(), c.step()) }
	if !j.Killed {
		return w.rounds(j.From, j.To)
	}
	if err := w.rounds(j.From, j.To-1); err != nil {
		return err
	}
	_, err := w.round(j.To - 1)
	return err
}

func writeBack(f vfs.File) {
	unix.SyncFileRange(int(f.OS().Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	runtime.KeepAlive(f)
}

func save(path string, v any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(gob.NewEncoder(f).Encode(v), f.Close())
}

func load(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return gob.NewDecoder(f).Decode(v)
}
