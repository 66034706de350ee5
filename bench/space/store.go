package main

import "errors"

// store is what the workload needs of one. A change is acknowledged when the
// kernel has it, or sooner: no store syncs.
type store interface {
	write(list []change) error // all at once
	view(key []byte, fn func(value []byte) error) error
	compact() error // by hand, as far as it goes
	close() error
}

// holder is a store with readers that hold on to values of the first round
// until they are released.
type holder interface {
	hold(w *workload) error
	release() error // compares what was held
}

// watched is a store that says what readers hold of it.
type watched interface{ pinned() pinned }

// pinned is the bytes of removed files that are still on disk, and in memory.
type pinned struct{ disk, memory int64 }

var errAbsent = errors.New("no such key")

var stores = []struct {
	name string
	open func(dir string, c config) (store, error)
}{
	{"crowfly", openCrowfly},
	{"held", openHeld},
	{"bbolt", openBolt},
	{"badger", openBadger},
	{"badger-vlog", openBadgerLog},
	{"pebble", openPebble},
}

func names() (list []string) {
	for _, s := range stores {
		list = append(list, s.name)
	}
	return list
}

func open(name, dir string, c config) (store, error) {
	for _, s := range stores {
		if s.name == name {
			return s.open(dir, c)
		}
	}
	return nil, errors.New("no such store")
}
