package fuzz

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// A point is one image: a history, a cut and a state of the disk that this cut
// can leave and no other image of the same cut has.
const (
	crashStates = 8   // power cuts after every file operation, besides the end of the process
	generations = 3   // cuts in the history, in a recovery, in a recovery after that
	nested      = 200 // one recovery of so many is cut in its turn
)

// manner is that of the i-th state of a cut. The states of one cut lose things
// in each of the manners; how the directory and the sizes fare changes from cut
// to cut, so that every twelve cuts have seen all that goes together.
func manner(cut, i int) simdisk.Manner {
	return simdisk.Manner{
		Keep:    simdisk.Keep(i % simdisk.Keeps),
		Size:    simdisk.Size((i + cut) % simdisk.Sizes),
		Ordered: (i+cut/simdisk.Sizes)%2 == 0,
		Garbage: (i+cut)%4 == 0,
	}
}

const sawKill = "end of the process"

func sawManner(m simdisk.Manner) string {
	order := "unordered"
	if m.Ordered {
		order = "ordered"
	}
	return order + " power cut" + [simdisk.Keeps]string{
		" keeps a mixture", " keeps nothing", " keeps all", " keeps the first", " keeps some", " keeps all but one", " keeps one",
	}[m.Keep]
}

func sawSize(s simdisk.Size) string {
	return "sizes" + [simdisk.Sizes]string{" mixed", " of the bytes", " durable", " cached", " of a write", " between"}[s]
}

func sawGeneration(n int) string { return fmt.Sprintf("generation %d", n) }

// crashHistory is one history and what came of it.
type crashHistory struct {
	seed   uint64
	opts   db.Options
	keys   int
	ops    []operation
	from   int    // cut from this operation on
	rounds int    // of states for each cut
	replay string // check only this image, and those it comes from

	points int
	path   string // of the image that is wrong
	failed error
	seen   coverage
}

// run reports whether all images were right.
func (h *crashHistory) run() bool {
	h.seen = make(coverage)
	s := newSession(simdisk.New(), h.opts, h.keys, newReference())
	s.seen, s.at = h.seen, -1
	h.cutAlways(s, "", 0)
	h.note("", s.run(h.ops, s.check))
	s.leave()
	return h.failed == nil
}

// note keeps the first thing that went wrong.
func (h *crashHistory) note(path string, err error) {
	if err != nil && h.failed == nil {
		h.path, h.failed = path, err
	}
}

// cutAlways cuts after every file operation of a session.
func (h *crashHistory) cutAlways(s *session, path string, generation int) {
	n := 0
	s.hook = func(_ int, op string) {
		n++
		h.note(path, s.checkReaders())
		if generation > 0 || s.at >= h.from {
			h.cut(s, n, fmt.Sprintf("%s/%d-%s", path, n, op), generation)
		}
	}
	s.use(s.disk)
}

// cut checks all images of one cut. Their paths are the seeds of the choices
// they make.
func (h *crashHistory) cut(s *session, n int, path string, generation int) {
	if h.skips(path) {
		return
	}
	h.image(s.sim().Clone(), s.ref.fork(false), path+"-killed", generation)
	if h.seen.note(sawKill); !s.sim().Pending() {
		return // a power cut would take nothing away
	}
	seen := make([]uint64, 0, crashStates)
	for i := range crashStates * h.rounds {
		path, m := fmt.Sprintf("%s-%d", path, i), manner(n+i/crashStates, i)
		if h.skips(path) {
			continue
		}
		disk := s.sim().CrashIn(m, h.rand(path, 0))
		sum := disk.Sum()
		if slices.Contains(seen, sum) {
			continue
		}
		seen = append(seen, sum)
		h.seen.note(sawManner(m))
		h.seen.note(sawSize(m.Size))
		h.image(disk, s.ref.fork(true), path, generation)
	}
}

// skips reports whether neither this image nor any that comes from it is to be
// looked at.
func (h *crashHistory) skips(path string) bool {
	return h.failed != nil || !strings.HasPrefix(h.replay, path) && h.replay != ""
}

func (h *crashHistory) rand(path string, n uint64) *rand.Rand {
	sum := fnv.New64a()
	sum.Write([]byte(path))
	return rand.New(rand.NewPCG(h.seed+n<<32, sum.Sum64()))
}

// image checks one image.
func (h *crashHistory) image(disk *simdisk.Disk, ref *reference, path string, generation int) {
	if h.skips(path) {
		return
	}
	h.points++
	rng := h.rand(path, 1)
	s := newSession(disk, h.opts, h.keys, ref)
	s.seen = make(coverage)
	if generation+1 < generations && rng.IntN(nested) == 0 {
		h.seen.note(sawGeneration(generation + 1))
		h.cutAlways(s, path, generation+1)
	}
	h.note(path, h.recover(s, rng))
	if s.seen[sawHint] > 0 {
		h.seen.note(sawHintAfterCut)
	}
	s.leave()
}

// recover opens what a crash left, which is the check, and sees whether the
// store is good for more.
func (h *crashHistory) recover(s *session, rng *rand.Rand) error {
	readOnly := rng.IntN(4) == 0
	var shown state
	if readOnly {
		var err error
		if shown, err = s.checkReadOnly(); err != nil {
			return err
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	if readOnly && shown != s.ref.settled {
		return fmt.Errorf("read-only open finds %v, the writer %v", shown, s.ref.settled)
	}
	if rng.IntN(2) == 0 {
		return nil
	}
	return h.goOn(s, rng)
}

// goOn writes to a recovered store and looks whether that lasts.
func (h *crashHistory) goOn(s *session, rng *rand.Rand) error {
	for _, op := range []operation{
		{kind: opPut, key: rng.IntN(h.keys), size: rng.IntN(600)},
		{kind: opDelete, key: rng.IntN(h.keys), synced: true},
	} {
		if err := s.do(op); err != nil {
			return fmt.Errorf("after recovery, %v: %w", op, err)
		}
	}
	if err := errors.Join(s.check(), s.reopen(operation{}), s.check()); err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	return s.close(false)
}
