//go:build race

package lockorder

import (
	"strings"
	"sync"
	"testing"
)

// panicOf returns what fn panics with, or "".
func panicOf(fn func()) (message string) {
	defer func() {
		if p := recover(); p != nil {
			message = p.(string)
		}
	}()
	fn()
	return ""
}

func TestOrder(t *testing.T) {
	var writer Mutex[Writer]
	var index, other Mutex[Index]
	nested := func(first, second sync.Locker) func() {
		return func() {
			first.Lock()
			defer first.Unlock()
			second.Lock()
			second.Unlock()
		}
	}
	for _, c := range []struct {
		name string
		fn   func()
		want string
	}{
		{"down the table", nested(&writer, &index), ""},
		{"up the table", nested(&index, &writer), "lockorder.Writer is taken while lockorder.Index is held"},
		{"two of one place", nested(&index, &other), "lockorder.Index is taken while lockorder.Index is held"},
		{"one lock twice", nested(&index, &index), "lockorder.Index is taken while lockorder.Index is held"},
		{"unlocked twice", func() { index.Lock(); index.Unlock(); index.Unlock() }, "does not hold it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := panicOf(c.fn); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("panic %q, want %q", got, c.want)
			}
			if held := ranks(); len(held) != 0 {
				t.Errorf("still held: %v", held)
			}
		})
	}
}

// TestTryLock: an attempt never waits, so it is free of the order, and what it
// has locked counts for the locks after it.
func TestTryLock(t *testing.T) {
	var writer Mutex[Writer]
	var index Mutex[Index]
	index.Lock()
	if !writer.TryLock() {
		t.Fatal("an unlocked mutex could not be locked")
	}
	index.Unlock()
	var follower Mutex[Follower]
	if got := panicOf(follower.Lock); !strings.Contains(got, "while lockorder.Writer is held") {
		t.Errorf("panic %q after an attempt that locked", got)
	}
	writer.Unlock()
}

// TestOtherGoroutines: only what the same goroutine holds counts.
func TestOtherGoroutines(t *testing.T) {
	var writer Mutex[Writer]
	var index Mutex[Index]
	index.Lock()
	defer index.Unlock()
	done := make(chan string)
	go func() {
		done <- panicOf(func() { writer.Lock(); writer.Unlock() })
	}()
	if got := <-done; got != "" {
		t.Error(got)
	}
}

func TestNoPlace(t *testing.T) {
	type nowhere struct{}
	if got := panicOf(func() { new(Mutex[nowhere]).Lock() }); !strings.Contains(got, "no place in the order") {
		t.Errorf("panic %q for a lock without a place", got)
	}
}
