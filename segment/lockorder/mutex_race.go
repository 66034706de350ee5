//go:build race

package lockorder

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Mutex is a mutual exclusion lock with a place in the order. Its zero value is
// unlocked. It must not be copied after its first use. It must be unlocked by
// the goroutine that locked it.
type Mutex[Place any] struct{ mutex sync.Mutex }

// Lock locks m. It panics if the calling goroutine holds a lock that comes
// later in the order, or one of the same place.
func (m *Mutex[Place]) Lock() {
	acquire(rank[Place]())
	m.mutex.Lock()
}

// TryLock locks m if it is unlocked, and reports whether it did. It never waits,
// so it may be called out of order.
func (m *Mutex[Place]) TryLock() bool {
	if !m.mutex.TryLock() {
		return false
	}
	push(rank[Place]())
	return true
}

// Unlock unlocks m.
func (m *Mutex[Place]) Unlock() {
	release(rank[Place]())
	m.mutex.Unlock()
}

func rank[Place any]() int {
	var place Place
	at := slices.Index(order, any(place))
	if at < 0 {
		panic(fmt.Sprintf("lockorder: %T has no place in the order", place))
	}
	return at
}

// held has the ranks of the locks that each goroutine holds, by its number. A
// goroutine changes only its own.
var held sync.Map // of string to []int

func acquire(at int) {
	for _, other := range ranks() {
		if other >= at {
			panic(fmt.Sprintf("lockorder: %T is taken while %T is held", order[at], order[other]))
		}
	}
	push(at)
}

func push(at int) { held.Store(goroutine(), append(ranks(), at)) }

func release(at int) {
	rest := ranks()
	i := slices.Index(rest, at)
	if i < 0 {
		panic(fmt.Sprintf("lockorder: %T is unlocked by a goroutine that does not hold it", order[at]))
	}
	if rest = slices.Delete(slices.Clone(rest), i, i+1); len(rest) == 0 {
		held.Delete(goroutine())
		return
	}
	held.Store(goroutine(), rest)
}

func ranks() []int {
	if value, ok := held.Load(goroutine()); ok {
		return value.([]int)
	}
	return nil
}

// goroutine returns the number of the calling goroutine, which the runtime
// tells only as the first line of a stack: "goroutine 7 [running]:".
func goroutine() string {
	var line [64]byte
	return string(bytes.Fields(line[:runtime.Stack(line[:], false)])[1])
}
