package blockdisk

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// simulate runs the workload with one writer, or with churn set that, on the
// simulated disk and calls cut after every file operation, with what was
// recorded and the position.
func simulate(t *testing.T, seed uint64, churns bool, cut func(d *simdisk.Disk, ops []*fileOp, at uint64)) {
	t.Helper()
	disk := simdisk.New()
	position := func() uint64 { return uint64(disk.Ops()) }
	r := newRecorder(disk, position, nil)
	r.after = func() { cut(disk, r.ops, position()) }
	if churns {
		c := &churn{fs: r, rng: rand.New(rand.NewPCG(seed, 0)), writeBack: func(vfs.File) {}}
		for range 200 {
			if err := c.step(); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	w := &workload{fs: r, position: position, seed: seed, writes: 12, journals: make([]journal, 1)}
	if err := w.rounds(0, 3); err != nil {
		t.Fatal(err)
	}
}

func outcomeOf(t *testing.T, d *simdisk.Disk) outcome {
	t.Helper()
	out := make(outcome)
	for _, name := range d.Names() {
		data, err := d.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	return out
}

// TestPossibleAllowsSimulator promises that possible calls nothing impossible
// that the simulated disk does, by crashing one after every file operation of
// a workload.
func TestPossibleAllowsSimulator(t *testing.T) {
	const seeds, crashes = 4, 4
	images := 0
	for seed := range uint64(seeds) {
		simulate(t, seed, seed%2 == 1, func(d *simdisk.Disk, ops []*fileOp, at uint64) {
			for i := range uint64(crashes) {
				rng := rand.New(rand.NewPCG(seed, at<<8|i))
				if err := possible(ops, outcomeOf(t, d.Crash(rng)), at, true); err != nil {
					t.Errorf("history %d, crash %d after operation %d: %v", seed, i, at, err)
				}
				images++
			}
		})
	}
	t.Logf("%d crashes", images)
}

// TestPossibleRefuses promises that possible says no to what no power cut can
// leave. Each case spoils a crash of the simulated disk in one way, and tells
// whether there was anything to spoil.
func TestPossibleRefuses(t *testing.T) {
	cases := map[string]func(rng *rand.Rand, left *remains, out outcome) bool{
		"durable byte changed":     changeDurable,
		"durable end cut off":      cutDurable,
		"file longer than ever":    lengthen,
		"durable name missing":     dropName,
		"unknown name":             addName,
		"removed file back":        bringBack,
		"half a sector of a write": tearSector,
		"another file's contents":  swapFiles,
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			simulate(t, 1, false, func(d *simdisk.Disk, ops []*fileOp, at uint64) {
				rng := rand.New(rand.NewPCG(at, 0))
				out := outcomeOf(t, d.Crash(rng))
				if !spoil(rng, after(ops, at), out) {
					return
				}
				tried++
				if possible(ops, out, at, false) == nil {
					t.Errorf("allowed after operation %d", at)
				}
			})
			if tried == 0 {
				t.Error("there was nothing to try it on")
			}
			t.Logf("%d refused", tried)
		})
	}
}

// settled returns a file that is durable under its name with all it has, at
// least size bytes, and whose name no pending operation can change.
func settled(rng *rand.Rand, left *remains, size int) (name string, ok bool) {
	touched := left.namesOf(left.pending)
	var list []string
	for name, file := range left.names {
		if c := left.files[file]; !touched[name] && len(c.pending) == 0 && len(c.durable) >= size {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return "", false
	}
	slices.Sort(list)
	return list[rng.IntN(len(list))], true
}

func changeDurable(rng *rand.Rand, left *remains, out outcome) bool {
	name, ok := settled(rng, left, 1)
	if ok {
		out[name] = slices.Clone(out[name])
		out[name][rng.IntN(len(out[name]))] ^= 1 << rng.IntN(8)
	}
	return ok
}

func cutDurable(rng *rand.Rand, left *remains, out outcome) bool {
	name, ok := settled(rng, left, 1)
	if ok {
		out[name] = out[name][:len(out[name])-1]
	}
	return ok
}

func lengthen(rng *rand.Rand, left *remains, out outcome) bool {
	name, ok := settled(rng, left, 0)
	if ok {
		out[name] = append(slices.Clone(out[name]), 0)
	}
	return ok
}

func dropName(rng *rand.Rand, left *remains, out outcome) bool {
	name, ok := settled(rng, left, 0)
	delete(out, name)
	return ok
}

func addName(_ *rand.Rand, _ *remains, out outcome) bool {
	out["0000000000000bad.seg"] = nil
	return true
}

// bringBack gives a file that was durably renamed its earlier name back.
func bringBack(_ *rand.Rand, left *remains, out outcome) bool {
	for name, file := range left.names {
		old := "tmp-" + name
		_, temporary := left.names[old]
		if _, ok := out[name]; ok && !temporary && !left.namesOf(left.pending)[old] && len(left.files[file].pending) == 0 {
			out[old] = out[name]
			return true
		}
	}
	return false
}

// tearSector leaves one byte of a write in the middle of a sector that only
// this write has touched.
func tearSector(_ *rand.Rand, left *remains, out outcome) bool {
	for name, file := range left.names {
		c := left.files[file]
		for _, w := range c.pending {
			at := w.Off/sector*sector + sector // the first whole sector of the write
			if at+sector > w.Off+len(w.Data) || at+sector > len(out[name]) || len(c.touching(at)) > 1 || at < len(c.durable) {
				continue
			}
			torn := slices.Clone(out[name])
			clear(torn[at : at+sector])
			torn[at+sector/2] = w.Data[at+sector/2-w.Off]
			out[name] = torn
			return torn[at+sector/2] != 0
		}
	}
	return false
}

func swapFiles(rng *rand.Rand, left *remains, out outcome) bool {
	a, ok := settled(rng, left, 1)
	b, _ := settled(rng, left, 1)
	if !ok || slices.Equal(out[a], out[b]) {
		return false
	}
	out[a], out[b] = out[b], out[a]
	return true
}

// TestReferenceRefuses promises that the comparison with what the writers did
// notices a lost, a halved, a returned and an early write.
func TestReferenceRefuses(t *testing.T) {
	j := journal{
		{Changes: []change{{0, 4, 9}, {1, 5, 9}}, Synced: true, Begin: 1, Acked: 5},
		{Changes: []change{{0, 8, 9}}, Synced: true, Begin: 6, Acked: 9},
		{Changes: []change{{1, 0, 0}}, Begin: 10, Acked: 11},
		{Changes: []change{{2, 16, 9}, {3, 17, 9}}, Begin: 12},
	}
	const before = 12 // the last write has not begun
	allowed := map[uint64][]state{
		1:      {{}},
		4:      {{}, {4, 5}},
		5:      {{4, 5}},
		8:      {{4, 5}, {8, 5}},
		before: {{8, 5}, {8, 0}},
		20:     {{8, 5}, {8, 0}, {8, 0, 16, 17}},
	}
	all := []state{{}, {4}, {4, 5}, {8, 5}, {8, 0}, {4, 0}, {8, 5, 16, 17}, {8, 0, 16}, {8, 0, 16, 17}}
	for cut, yes := range allowed {
		for _, s := range all {
			err := j.check(s, cut)
			if slices.Contains(yes, s) != (err == nil) {
				t.Errorf("cut %d, %v: %v", cut, s, err)
			}
		}
	}
}
