package blockdisk

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	writers = 4
	writes  = 60 // of a writer in a round
	rounds  = 6  // half of them by a process that is killed then

	replayEnv = "CROWFLY_REPLAY"
)

// skip is for a machine that can't run a test. Where all have to run it fails.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") == "1" {
		t.Fatal("not skipped: ", reason)
	}
	t.Skip(reason)
}

// need skips the test unless the machine has what it needs.
func need(t *testing.T, f fileSystem) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "mounting needs root")
	}
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(path); err != nil {
			skip(t, fmt.Sprintf("needs FUSE and loop devices: %v", err))
		}
	}
	if _, err := exec.LookPath(f.mkfs[0]); err != nil {
		skip(t, fmt.Sprintf("needs %s: %v", f.mkfs[0], err))
	}
	known, err := os.ReadFile("/proc/filesystems")
	check(t, err)
	if !slices.Contains(strings.Fields(string(known)), f.name) && exec.Command("modprobe", f.name).Run() != nil {
		skip(t, "the kernel has no "+f.name)
	}
}

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	check(t, err)
	return n
}

// TestPowerCut promises that on real file systems a power cut at any moment
// loses nothing acknowledged, halves no batch, brings nothing back and stops
// no start; and that it leaves nothing the simulated disk could not leave,
// which is what the other crash tests rest on. The package comment describes
// the method.
func TestPowerCut(t *testing.T) {
	images := setting(t, "CROWFLY_IMAGES", 20)
	if path := os.Getenv(replayEnv); path != "" {
		r := new(recording)
		check(t, load(path, r))
		r.cutAndLook(t, images)
		return
	}
	seed := uint64(setting(t, "CROWFLY_SEED", int(time.Now().UnixNano()%1_000_000)))
	for _, f := range fileSystems {
		t.Run(f.name, func(t *testing.T) {
			need(t, f)
			began := time.Now()
			r := record(t, f, seed)
			defer r.keep(t)
			t.Logf("seed %d: %d writes to the store, %d acknowledged as durable, %d file operations, %d requests and %d flushes in %.1f s",
				seed, r.writes(), r.acknowledged(len(r.Log)), len(r.Job.Ops[storeDir])+len(r.Job.Ops[churnDir]), len(r.Log)-r.start(), r.flushes(), time.Since(began).Seconds())
			r.cutAndLook(t, images)
			r.lie(t)
		})
	}
}

// cutAndLook lets the power fail n times.
func (r *recording) cutAndLook(t *testing.T, n int) {
	cuts := powerCuts(rand.New(rand.NewPCG(r.Job.Seed, 0)), r.Log, r.start(), len(r.Log), n)
	slices.SortStableFunc(cuts, func(a, b powerCut) int { return cmp.Compare(a.at, b.at) })
	const enough = 3 // failures are many of a kind
	began, acknowledged, lossy, failures := time.Now(), 0, 0, 0
	disk := &replay{log: r.Log, disk: make(content)}
	for _, c := range cuts {
		found := r.look(t, disk.cut(c), c.at)
		if err := errors.Join(found.mount, found.wrong, found.impossible); err != nil {
			t.Errorf("%s, %v, workload with seed %d: %v", r.FS, c, r.Job.Seed, err)
			if failures++; failures == enough {
				break
			}
		}
		if found.lossy {
			lossy++
		}
		acknowledged += r.acknowledged(c.at)
	}
	if !t.Failed() {
		t.Logf("%d images, %d ms an image, 0 lost of %d acknowledged writes in them; in %d something not durable was lost",
			n, time.Since(began).Milliseconds()/int64(n), acknowledged, lossy)
	}
}

// lie makes disks that claim to have flushed what they have not. That this is
// noticed proves that loss would be.
func (r *recording) lie(t *testing.T) {
	disk := &replay{log: r.Log, disk: make(content)}
	length := len(r.Log) - r.start()
	for _, part := range []int{20, 60} {
		at := r.start() + length*part/100
		claimed := at + length*20/100
		found := r.look(t, disk.cut(powerCut{at: at, mode: none}), claimed)
		if found.mount != nil {
			t.Errorf("cut %d: %v", at, found.mount)
			continue
		}
		if found.wrong == nil || found.impossible == nil {
			t.Errorf("%s: a disk that forgot the requests from %d to %d went unnoticed: by the comparison of values: %v, by that with the simulated disk: %v",
				r.FS, at, claimed, found.wrong == nil, found.impossible == nil)
		}
	}
}

func (r *recording) fileSystem() *fileSystem {
	i := slices.IndexFunc(fileSystems, func(f fileSystem) bool { return f.name == r.FS })
	return &fileSystems[i]
}

// finding is what is wrong with an image.
type finding struct {
	mount      error // it is not even a file system
	wrong      error // the store has not what it must have
	impossible error // the simulated disk can't do that
	lossy      bool  // something that was not durable is gone, at least in part
}

// look mounts what a power cut left on a disk and examines the store there.
func (r *recording) look(t *testing.T, disk content, cut int) (found finding) {
	t.Helper()
	f := r.fileSystem()
	image := memoryFile(t, f.size)
	defer image.Close()
	for n, b := range disk {
		_, err := image.WriteAt(b, n*block)
		check(t, err)
	}
	dev, err := attach(int(image.Fd()))
	check(t, err)
	dir := t.TempDir()
	if found.mount = f.mount(t, dev, dir); found.mount != nil {
		return found
	}
	defer unmount(t, dir)
	for name, ops := range r.Job.Ops {
		out, err := readOutcome(filepath.Join(dir, name))
		if err != nil {
			return finding{mount: err}
		}
		if err := possible(ops, out, uint64(cut), false); err != nil {
			found.impossible = fmt.Errorf("not possible on the simulated disk: %s: %w", name, err)
		}
		found.lossy = found.lossy || !after(ops, uint64(cut)).all(out)
	}
	found.wrong = verify(filepath.Join(dir, storeDir), r.Job.Journals, uint64(cut))
	return found
}

func readOutcome(dir string) (outcome, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make(outcome)
	for _, e := range entries {
		if out[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return out, nil
}
