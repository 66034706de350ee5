package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/crowfly/crowfly/bench/measure"
)

const (
	valueSize = 4096
	rounds    = 4   // writes of each key
	batchSize = 256 // changes
)

// workload writes every key several times, each time in another order, and then
// deletes half of them.
type workload struct {
	keys int
	gone []bool // by number
	live int64  // bytes of keys and values that are left
}

func newWorkload(live int64) *workload {
	w := &workload{keys: int(2 * live / valueSize)}
	w.gone = make([]bool, w.keys)
	for _, n := range w.order(0)[:w.keys/2] {
		w.gone[n] = true
	}
	w.live = int64(w.keys-w.keys/2) * (valueSize + measure.KeySize)
	return w
}

func (w *workload) String() string {
	return fmt.Sprintf("%d keys with %d bytes, each written %d times in shuffled rounds, half of them deleted, %d at a time, no sync; %d MiB live",
		w.keys, valueSize, rounds, batchSize, w.live>>20)
}

// order is the order of the keys in a round; the same for all stores.
func (w *workload) order(round uint64) []int {
	return rand.New(rand.NewPCG(round, 1)).Perm(w.keys)
}

// change is a put, or a delete if the value is nil.
type change struct{ key, value []byte }

// write does all of it. first is called after the first round.
func (w *workload) write(s store, first func() error) error {
	for round := uint64(1); round <= rounds; round++ {
		if err := w.writeKeys(s, w.order(round), round); err != nil {
			return err
		}
		if round == 1 {
			if err := first(); err != nil {
				return err
			}
		}
	}
	doomed := w.order(0)[:w.keys/2]
	return w.writeKeys(s, doomed, 0)
}

// writeKeys writes a version of each key; version 0 is its end.
func (w *workload) writeKeys(s store, numbers []int, version uint64) error {
	list, space := make([]change, 0, batchSize), make([]byte, batchSize*valueSize)
	for i, n := range numbers {
		c := change{key: measure.Key(nil, uint64(n))}
		if version > 0 {
			c.value = space[len(list)*valueSize:][:valueSize]
			measure.Fill(c.value, uint64(n), version)
		}
		list = append(list, c)
		if len(list) == batchSize || i == len(numbers)-1 {
			if err := s.write(list); err != nil {
				return err
			}
			list = list[:0]
		}
	}
	return nil
}

// verify compares everything a store has with what it should.
func (w *workload) verify(s store) error {
	for n, gone := range w.gone {
		err := s.view(measure.Key(nil, uint64(n)), func(value []byte) error {
			if gone {
				return fmt.Errorf("key %d is back", n)
			}
			return checkValue(value, uint64(n), rounds)
		})
		switch {
		case gone && errors.Is(err, errAbsent):
		case err != nil:
			return fmt.Errorf("key %d: %w", n, err)
		}
	}
	return nil
}

func checkValue(value []byte, n, version uint64) error {
	if len(value) != valueSize {
		return fmt.Errorf("value of key %d has %d bytes", n, len(value))
	}
	return measure.Check(value, n, version)
}
