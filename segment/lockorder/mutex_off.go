//go:build !race

package lockorder

import "sync"

// Mutex is a mutual exclusion lock with a place in the order. Its zero value is
// unlocked. It must not be copied after its first use.
type Mutex[Place any] struct{ sync.Mutex }
