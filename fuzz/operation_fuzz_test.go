package fuzz

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// byteSource makes random numbers out of given bytes, one of each, so that
// whoever chooses the bytes chooses what is drawn. When they have run out, what
// follows is always the same.
type byteSource struct {
	left []byte
	rest rand.PCG
}

func (s *byteSource) Uint64() uint64 {
	if len(s.left) == 0 {
		return s.rest.Uint64()
	}
	b := s.left[0]
	s.left = s.left[1:]
	return uint64(b) * 0x0101010101010101 // high and low bits alike
}

// FuzzOperations promises what TestCrash does for histories and power cuts that
// the input chooses. Method: the first byte tells the options, the others of
// ops the history; cuts tells after which file operations the power fails or
// the process is killed, and how.
func FuzzOperations(f *testing.F) {
	for seed := range byte(12) {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		ops, cuts := make([]byte, 60), make([]byte, 16)
		for i := range ops {
			ops[i] = byte(rng.Uint32())
		}
		for i := range cuts {
			cuts[i] = byte(rng.Uint32())
		}
		ops[0] = seed<<5 | seed
		f.Add(ops, cuts)
	}
	f.Fuzz(func(t *testing.T, ops, cuts []byte) {
		if len(ops) == 0 || len(ops) > 200 || len(cuts) > 64 {
			t.Skip("nothing to do, or no more to be learned")
		}
		opts, history := decodeHistory(ops)
		s := newSession(simdisk.New(), opts, crashKeys, newReference())
		var wrong error
		s.hook = func(n int, op string) {
			if wrong != nil || len(cuts) == 0 {
				return
			}
			if err := s.cutHere(n, cuts[n%len(cuts)]); err != nil {
				wrong = fmt.Errorf("cut after file operation %d, %s: %w", n, op, err)
			}
		}
		s.use(s.disk)
		err := s.run(history, s.check)
		s.leave()
		if wrong != nil {
			err = wrong
		}
		if err != nil {
			var b strings.Builder
			writeHistory(&b, history)
			t.Fatalf("%+v: %v\n%s", opts, err, &b)
		}
	})
}

// decodeHistory draws as many operations as the bytes are good for.
func decodeHistory(b []byte) (opts db.Options, history []operation) {
	first, source := b[0], &byteSource{left: b[1:]}
	opts = crashSettings[int(first&0x7f)%len(crashSettings)]
	g := generator{Rand: rand.New(source), keys: crashKeys, segment: int(opts.SegmentSize), mix: readerMix}
	if first&0x80 != 0 {
		g.mix = faultMix
	}
	const most = 40
	for len(source.left) > 0 && len(history) < most {
		history = append(history, g.operation(g.kind()))
	}
	return opts, history
}

// cutHere stops the session if the byte says so, and opens what is left, twice,
// with a write between.
func (s *session) cutHere(n int, how byte) error {
	const one = 4 // of so many file operations is followed by a cut
	if how%one != 0 {
		return nil
	}
	power, disk := how&0x80 == 0, (*simdisk.Disk)(nil)
	if power {
		disk = s.sim().Crash(rand.New(rand.NewPCG(uint64(how), uint64(n))))
	} else {
		disk = s.sim().Clone()
	}
	image := newSession(disk, s.opts, crashKeys, s.ref.fork(power))
	defer image.leave()
	return image.run([]operation{
		{kind: opPut, key: int(how) % crashKeys, size: int(how), synced: true}, {kind: opReopen},
	}, image.check)
}
