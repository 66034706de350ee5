package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// What the writer beside followers writes comes in steps, from 1. Step n puts a
// key of its own, and a blob if n is a multiple of besideBlob. Then one batch
// puts two pairs of keys, the second of which is one of besidePairs in turn, if n
// is a multiple of besideWide many keys at once, and deletes the key of its own
// for good. So the state after any write is known.
const (
	besideBlob  = 5
	besidePairs = 7
	besideWide  = 6
	wideKeys    = 300
	besideRun   = 10 // steps until the store is closed and opened again, which folds segments
)

func shortLived(n int) string         { return fmt.Sprintf("short-lived/%d", n) }
func pairKey(n int, half rune) string { return fmt.Sprintf("pair/%d/%c", n%besidePairs, half) }

// besideValue is the number of a step and bytes that only this value has.
func besideValue(key string, n int) []byte {
	size := 300
	switch {
	case key == "blob":
		size = killBlob + n%500
	case strings.HasPrefix(key, "wide/"):
		size = 0
	}
	v := fmt.Appendf(nil, "%d ", n)
	for i := 0; len(v) < size; i++ {
		v = fmt.Appendf(v, "%s%x", key, n*i)
	}
	return v
}

func besideNumber(key string, value []byte) (int, error) {
	head, _, _ := strings.Cut(string(value[:min(len(value), 20)]), " ")
	n, err := strconv.Atoi(head)
	if err != nil || !bytes.Equal(value, besideValue(key, n)) {
		return 0, fmt.Errorf("%s has %d bytes that were never written: %.20q", key, len(value), value)
	}
	return n, nil
}

// beBeside goes on with the store in args[0] up to step args[1] in mode args[2].
func beBeside(args []string) error {
	last, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	mode, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for run := 1; ; run++ {
		size := int64(1 << 20)
		if run%4 == 0 {
			size = 16 << 10 // is filled; the large ones take in what is small beside them
		}
		store, err := db.Open(args[0], &db.Options{
			Sync: db.SyncMode(mode), SyncEvery: 5 * time.Millisecond, SegmentSize: size, BlobSize: killBlob,
		})
		if err != nil {
			return err
		}
		n, err := besideGet(store, "a")
		for i := 0; err == nil && i < besideRun && n < last; i++ {
			n++
			err = besideStep(store, n)
		}
		if err := errors.Join(err, store.Close()); err != nil || n == last {
			return err
		}
	}
}

func besideStep(store *db.DB, n int) error {
	key := shortLived(n)
	if err := store.Put([]byte(key), besideValue(key, n), nil); err != nil {
		return err
	}
	if n%besideBlob == 0 {
		value := besideValue("blob", n)
		if _, err := store.PutReader(context.Background(), []byte("blob"), bytes.NewReader(value), int64(len(value)), nil); err != nil {
			return err
		}
	}
	var b db.Batch
	for _, key := range []string{"a", "b", pairKey(n, 'x'), pairKey(n, 'y')} {
		b.Put([]byte(key), besideValue(key, n), nil)
	}
	for i := 0; i < wideKeys && n%besideWide == 0; i++ {
		key := fmt.Sprintf("wide/%d", i)
		b.Put([]byte(key), besideValue(key, n), nil)
	}
	b.Delete([]byte(key))
	return store.Apply(&b, nil)
}

// besideGet returns the number of a key's value, 0 if it has none.
func besideGet(store interface {
	Get(dst, key []byte) ([]byte, error)
}, key string) (int, error) {
	value, err := store.Get(nil, []byte(key))
	if errors.Is(err, db.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return besideNumber(key, value)
}

// lookout is one goroutine that reads a follower and remembers how far it was.
type lookout struct {
	store *db.DB
	seen  int // last step
	looks int
}

// atOnce looks at everything as it is at one moment: the state after some write,
// and no other.
func (l *lookout) atOnce() error {
	snap, err := l.store.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	found := make(map[string]int)
	for key, e := range snap.All() {
		if e.Err() != nil {
			return e.Err()
		}
		value, err := e.Bytes()
		if errors.Is(err, db.ErrSnapshotExpired) && string(key) == "blob" {
			continue // the writer has removed it
		}
		if err == nil {
			found[string(key)], err = besideNumber(string(key), value)
		}
		if err != nil {
			return err
		}
	}
	n := found["a"]
	for key, got := range found {
		if !besideMayBe(key, got, n) {
			return fmt.Errorf("%s = %d after step %d", key, got, n)
		}
	}
	if pairs := min(n, besidePairs) + min(n, 1); len(found) < 2*pairs+min(n/besideWide, 1)*wideKeys {
		return fmt.Errorf("%d keys after step %d", len(found), n)
	}
	return l.advance(n)
}

// besideMayBe tells whether a key may have a value when step n was the last one
// whose batch is there. The next one may have begun.
func besideMayBe(key string, got, n int) bool {
	switch {
	case key == "a" || key == "b":
		return got == n
	case key == "blob":
		return got == n-n%besideBlob || got == n+1
	case strings.HasPrefix(key, "wide/"):
		return got == n-n%besideWide
	case strings.HasPrefix(key, "pair/"):
		return got <= n && got > n-besidePairs && strings.HasPrefix(key, fmt.Sprintf("pair/%d/", got%besidePairs))
	}
	return got == n+1 && key == shortLived(got)
}

func (l *lookout) advance(n int) error {
	if n < l.seen {
		return fmt.Errorf("shows step %d after %d", n, l.seen)
	}
	l.seen, l.looks = n, l.looks+1
	return nil
}

// bothEnds looks at the first and the last key of the batches that are wide, as
// they are at one moment. That takes so little time that it may be in the midst of
// their being shown.
func (l *lookout) bothEnds() error {
	snap, err := l.store.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Close()
	n, err := besideGet(snap, "a")
	if err != nil {
		return err
	}
	last := fmt.Sprintf("wide/%d", wideKeys-1)
	if got, err := besideGet(snap, last); err != nil || !besideMayBe(last, got, n) {
		return fmt.Errorf("%s = %d after step %d, %v", last, got, n, err)
	}
	return l.advance(n)
}

// oneByOne looks at keys one after the other, while the store may advance.
func (l *lookout) oneByOne() error {
	n, err := besideGet(l.store, "a")
	if err != nil || n == 0 {
		return errors.Join(err, l.advance(n))
	}
	for k := max(1, n-2*besideRun); k <= n; k++ {
		if _, err := l.store.Get(nil, []byte(shortLived(k))); !errors.Is(err, db.ErrNotFound) {
			return fmt.Errorf("%s after step %d: %v", shortLived(k), n, err)
		}
	}
	if err := l.view("b", n); err != nil {
		return err
	}
	if n >= besideBlob {
		if err := l.value("blob", n-n%besideBlob); err != nil {
			return err
		}
	}
	return l.advance(n)
}

func (l *lookout) view(key string, least int) error {
	return l.store.View([]byte(key), func(value []byte) error {
		return notBelow(key, value, least)
	})
}

func (l *lookout) value(key string, least int) error {
	v, err := l.store.Value([]byte(key))
	if err != nil {
		return err
	}
	defer v.Close()
	value, err := v.Bytes()
	if err != nil {
		return err
	}
	return notBelow(key, value, least)
}

func notBelow(key string, value []byte, least int) error {
	n, err := besideNumber(key, value)
	if err == nil && n < least {
		err = fmt.Errorf("%s = %d, after %d was seen", key, n, least)
	}
	return err
}

// watched is a read-only store with goroutines that look at it until it is
// stopped. refresh makes one of them ask for news each time; else
// they come by themselves.
type watched struct {
	t     *testing.T
	store *db.DB
	views [3]lookout
	stop  chan struct{}
	group sync.WaitGroup
}

func watchStore(t *testing.T, dir string, refresh bool) *watched {
	t.Helper()
	store, err := db.Open(dir, &db.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, store: store, stop: make(chan struct{})}
	for i := range w.views {
		w.views[i].store = store
	}
	w.look(w.views[0].oneByOne, refresh, 2*time.Millisecond)
	w.look(w.views[1].atOnce, false, 2*time.Millisecond)
	w.look(w.views[2].bothEnds, false, 50*time.Microsecond)
	return w
}

func (w *watched) look(look func() error, refresh bool, pause time.Duration) {
	w.group.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			var err error
			if refresh {
				err = w.store.Refresh()
			}
			if err = errors.Join(err, look()); err != nil {
				w.t.Error(err)
				return
			}
			time.Sleep(rand.N(pause)) // the writer needs the processor, too
		}
	})
}

// end stops looking and returns how often each of them has looked.
func (w *watched) end() (looks []int) {
	w.t.Helper()
	close(w.stop)
	w.group.Wait()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	for _, l := range w.views {
		looks = append(looks, l.looks)
	}
	return looks
}

// TestFollowerProcess: read-only stores beside a writer in another process show
// the store as it was after some write, never an earlier one than before, and
// never a deleted key again, while segments are sealed, folded and removed under
// them and while the writer is killed and another one starts. In the end they
// have seen everything.
//
// Two of them are there all the time, one that asks for news and one that gets
// them by itself. Others come while the writer starts. CROWFLY_KILLS / 10 is how
// often that is.
func TestFollowerProcess(t *testing.T) {
	dir := t.TempDir()
	asking, waiting := watchStore(t, dir, true), watchStore(t, dir, false)
	for round := range rounds() {
		writer := startBeside(t, dir, 1<<30, db.SyncAlways+db.SyncMode(round%3))
		time.Sleep(rand.N(20 * time.Millisecond))
		late := watchStore(t, dir, rand.IntN(2) == 0)
		time.Sleep(rand.N(200 * time.Millisecond))
		writer.kill()
		late.end()
	}
	if err := asking.store.Refresh(); err != nil {
		t.Fatal(err)
	}
	killed, err := besideGet(asking.store, "a")
	if err != nil {
		t.Fatal(err)
	}
	last := killed + 3*besideRun
	startBeside(t, dir, last, db.SyncInterval).end()
	for _, w := range []*watched{asking, waiting} {
		if err := w.store.Refresh(); err != nil {
			t.Error(err)
		}
		end := lookout{store: w.store}
		if err := end.atOnce(); err != nil || end.seen != last {
			t.Errorf("shows step %d of %d in the end, %v", end.seen, last, err)
		}
	}
	stats := waiting.store.Stats()
	t.Logf("%d steps; looked %d and %d times; %d manifests, %d segments in the end",
		last, asking.end(), waiting.end(), stats.Generation, len(stats.Segments))
}

func startBeside(t *testing.T, dir string, last int, mode db.SyncMode) *child {
	t.Helper()
	return startChild(t, "beside", dir, strconv.Itoa(last), strconv.Itoa(int(mode)))
}

func rounds() int {
	n, _ := strconv.Atoi(os.Getenv("CROWFLY_KILLS"))
	return max(4, n/10)
}
