package fuzz

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// TestRealErrors promises the same as TestErrors for a real directory with real
// descriptors and mappings, and that afterwards no descriptor and no mapping of
// the store's files is left, and no goroutine. Method: the same workload runs on
// a directory that lets the n-th call of one kind fail before it gets to the
// system. The system says what is left once the collector has been at work. Of
// all n some are tried, spread evenly, unless CROWFLY_ERRORS=all wants every way
// to fail for every n.
func TestRealErrors(t *testing.T) {
	for i, opts := range errorSettings {
		for _, op := range failingOps {
			t.Run(fmt.Sprintf("%s/%d", op, i), func(t *testing.T) {
				failSome(t, opts, op, i)
			})
		}
	}
}

// failSome lets some of the calls of one kind fail, or all.
func failSome(t *testing.T, opts db.Options, op string, seed int) {
	const never = 1 << 30
	calls := never - realRun(t, opts, fault{op: op, skip: never, times: 1}).left
	if calls == 0 {
		t.Fatalf("the workload has no call of %s", op)
	}
	runs := 0
	for f := range sample(calls, failures(op), uint64(seed)) {
		if r := realRun(t, opts, f); r.hits == 0 {
			t.Fatalf("%v: does not happen", f)
		}
		runs++
	}
	t.Logf("%d calls, %d runs with a fault", calls, runs)
}

// sample yields all faults, or of the calls and of the ways to fail one from each
// part of the list.
func sample(calls int, ways []fault, seed uint64) iter.Seq[fault] {
	return func(yield func(fault) bool) {
		if os.Getenv("CROWFLY_ERRORS") == "all" {
			for i := range calls * len(ways) {
				f := ways[i%len(ways)]
				if f.skip = i / len(ways); !yield(f) {
					return
				}
			}
			return
		}
		samples, rng := 3, rand.New(rand.NewPCG(seed, 1))
		if underRace {
			samples = 1
		}
		for i := range samples {
			f := ways[(i*len(ways)+rng.IntN(len(ways)))/samples]
			f.skip = (i*calls + rng.IntN(calls)) / samples
			if !yield(f) {
				return
			}
		}
	}
}

// realResult is what came of a run.
type realResult struct {
	hits int // so often has the fault struck
	left int // so many more calls would have been let pass
}

// realRun does the workload in a directory of its own and looks for what is left
// of it.
func realRun(t *testing.T, opts db.Options, f fault) realResult {
	t.Helper()
	root := t.TempDir()
	goroutines, lost := runtime.NumGoroutine(), new(forgotten)
	watchdog := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("hangs: %v", f)) })
	result, err := workIn(root, opts, f, lost)
	watchdog.Stop()
	if err != nil {
		t.Fatalf("%v\n%v", f, err)
	}
	var left []string
	waitFor(t, "files closed, mappings and goroutines gone", func() bool {
		left, err = inUse(root)
		return err == nil && len(left) == 0 && runtime.NumGoroutine() <= goroutines
	})
	if left = append(left, lost.list()...); len(left) > 0 || err != nil || t.Failed() {
		t.Fatalf("%v\nleft: %q, %v; %d goroutines, before %d", f, left, err, runtime.NumGoroutine(), goroutines)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	return result
}

// workIn does the workload. Nothing of the store is reachable after it.
func workIn(root string, opts db.Options, f fault, lost *forgotten) (realResult, error) {
	disk, err := newRealDisk(filepath.Join(root, "store"), lost)
	if err != nil {
		return realResult{}, err
	}
	r := newErrorRun(disk, opts, f)
	err = r.run()
	return realResult{r.hits, r.left}, err
}

// inUse lists the descriptors and mappings that this process has of files below
// a directory, removed or not.
func inUse(root string) (list []string, err error) {
	const descriptors = "/proc/self/fd"
	entries, err := os.ReadDir(descriptors)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(descriptors, e.Name()))
		if err == nil && strings.HasPrefix(target, root+"/") {
			list = append(list, "descriptor "+e.Name()+" "+target)
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, " "+root+"/") {
			list = append(list, "mapping "+strings.TrimSpace(line))
		}
	}
	return list, nil
}
