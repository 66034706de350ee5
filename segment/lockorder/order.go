// Package lockorder is the order in which the engine takes its locks. It is
// internal to crowfly and promises nothing to other programs.
//
// A goroutine that holds a lock takes only locks further down the table. So no
// two goroutines can wait for each other. Each engine mutex is a Mutex with its
// place in the table as the type parameter. In a build with the race detector
// Lock panics if the goroutine holds a lock of the same place or of a later
// one; in any other build a Mutex is a sync.Mutex and costs nothing more.
//
// Readers of values take none of these locks, except that the first use of a
// blob takes BlobCache, and an open or close of a handle takes Handles.
package lockorder

// Places of locks, named after what the lock guards.
type (
	Follower   struct{} // the refresh of a read-only store
	Compaction struct{} // one step of compaction
	Writer     struct{} // the tail segment and the commits; its holder does the I/O of writes
	Activity   struct{} // the figures and timers of the compactor
	Manifest   struct{} // the current list of segments
	Hold       struct{} // what one snapshot keeps in use
	Pinned     struct{} // removed segments that readers still hold
	Index      struct{} // every change of the index
	Blobs      struct{} // which blob files the store has
	BlobCache  struct{} // which blob files are open
	BlobBits   struct{} // which parts of one blob are verified
	Hints      struct{} // which segments have a hint
	Room       struct{} // free space, as last measured
	Handles    struct{} // the open handles
	Queue      struct{} // the callers that wait for a commit
)

// order has every place once, first the locks that are taken first.
var order = []any{
	Follower{},
	Compaction{},
	Writer{},
	Activity{},
	Manifest{},
	Hold{},
	Pinned{},
	Index{},
	Blobs{},
	BlobCache{},
	BlobBits{},
	Hints{},
	Room{},
	Handles{},
	Queue{},
}
