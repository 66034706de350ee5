package blockdisk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// recording is a workload with the log of the disk it ran on.
type recording struct {
	FS  string
	Job job
	Log []request
}

// record runs the workload on a new file system.
func record(t *testing.T, f fileSystem, seed uint64) *recording {
	t.Helper()
	d := serveDisk(t, f.size)
	backing, err := unix.Open(d.path, unix.O_RDWR|unix.O_CLOEXEC, 0) // not by package os, which would poll it
	check(t, err)
	dev, err := attach(backing)
	unix.Close(backing)
	check(t, err)
	dir := t.TempDir()
	err = f.make(dev)
	if err == nil {
		err = f.mount(t, dev, dir)
	}
	dev.Close()
	check(t, err)

	r := &recording{FS: f.name, Job: job{
		Dir: dir, Seed: seed, Writes: writes, Killed: true, To: rounds / 2,
		Journals: make([]journal, writers),
	}}
	work(t, &r.Job, d.counter)
	r.Job.From, r.Job.To, r.Job.Killed = r.Job.To, rounds, false
	work(t, &r.Job, d.counter)
	unmount(t, dir)
	r.Log = d.requests()
	return r
}

func (r *recording) start() int { return int(r.Job.Start) }

func (r *recording) writes() (n int) {
	for _, j := range r.Job.Journals {
		n += len(j)
	}
	return n
}

// acknowledged is the number of writes that a cut must not lose.
func (r *recording) acknowledged(cut int) (n int) {
	for _, j := range r.Job.Journals {
		least, _ := j.bounds(uint64(cut))
		n += least
	}
	return n
}

func (r *recording) flushes() (n int) {
	for _, q := range r.Log[r.start():] {
		if q.flush() {
			n++
		}
	}
	return n
}

// keep saves the recording if the test has failed.
func (r *recording) keep(t *testing.T) {
	if !t.Failed() || os.Getenv(replayEnv) != "" {
		return
	}
	outside := filepath.Dir(os.TempDir()) // that one is removed
	path := filepath.Join(outside, fmt.Sprintf("crowfly-%s-%d.recording", r.FS, r.Job.Seed))
	if err := save(path, r); err != nil {
		t.Error(err)
	}
	t.Logf("to try this log again set %s=%s", replayEnv, path)
}
