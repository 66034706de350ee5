package simdisk

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

// TestHandles: a file counts until it is closed or collected, and one that is
// collected without having been closed or mapped is told.
func TestHandles(t *testing.T) {
	d := New()
	handles := d.Handles()
	open := func(name string) *file {
		f, err := d.Open(name)
		check(t, err)
		return f.(*file)
	}
	for _, name := range []string{"closed", "mapped", "forgotten", "held"} {
		check(t, create(t, d, name).Close())
	}
	check(t, open("closed").Close())
	_, err := open("mapped").Map(1)
	check(t, err)
	open("forgotten")
	held := open("held")
	if n := len(handles.Open()); n < 1 {
		t.Errorf("%d files are open", n)
	}
	const attempts = 200
	for range attempts {
		if slices.Equal(handles.Open(), []string{"held"}) && slices.Equal(handles.Forgotten(), []string{"forgotten"}) {
			break
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if got := handles.Open(); !slices.Equal(got, []string{"held"}) {
		t.Errorf("open are %q", got)
	}
	if got := handles.Forgotten(); !slices.Equal(got, []string{"forgotten"}) {
		t.Errorf("forgotten are %q", got)
	}
	if got := d.Clone().Handles().Open(); len(got) != 0 {
		t.Errorf("a clone has %q open", got)
	}
	check(t, held.Close())
	if got := handles.Open(); len(got) != 0 {
		t.Errorf("after Close %q are open", got)
	}
}
