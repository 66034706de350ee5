package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

const (
	killWriters = 4  // goroutines
	killKeys    = 12 // that each of them has to itself
	killBlob    = 4 << 10
	defaultKill = 24
)

func killKey(writer, key int) []byte { return fmt.Appendf(nil, "%d/%d", writer, key) }

// killState is what one goroutine's keys contain: the number of the operation
// that wrote the value, 0 for none.
type killState [killKeys]uint32

// killStore is what the store contains.
type killStore [killWriters]killState

// killOp is one write. Its number and the goroutine say all about it, so that
// both processes know it.
type killOp struct {
	writer  int
	n       uint32
	changes []killChange
}

// killChange puts a value of so many bytes, or deletes if size is negative.
type killChange struct{ key, size int }

func newKillOp(writer int, n uint32) killOp {
	r := rand.New(rand.NewPCG(uint64(writer), uint64(n)))
	op := killOp{writer: writer, n: n}
	count := 1
	if r.IntN(4) == 0 {
		count += r.IntN(6)
	}
	for _, key := range r.Perm(killKeys)[:count] {
		size := killHead + r.IntN(200)
		switch r.IntN(12) {
		case 0, 1:
			size = -1
		case 2:
			size = r.IntN(3<<10) + killHead
		case 3:
			if count == 1 {
				size = killBlob + r.IntN(12<<10)
			}
		}
		op.changes = append(op.changes, killChange{key, size})
	}
	return op
}

const killHead = 12 // bytes of a value that say which one it is

// value of a change: what it is, and then bytes that no other value has.
func (op killOp) value(c killChange) []byte {
	v := binary.LittleEndian.AppendUint32(make([]byte, 0, c.size+8), uint32(op.writer))
	v = binary.LittleEndian.AppendUint32(v, op.n)
	v = binary.LittleEndian.AppendUint32(v, uint32(c.key))
	for r := rand.NewPCG(uint64(op.writer)<<32|uint64(op.n), uint64(c.key)); len(v) < c.size; {
		v = binary.LittleEndian.AppendUint64(v, r.Uint64())
	}
	return v[:c.size]
}

func (op killOp) apply(s killState) killState {
	for _, c := range op.changes {
		s[c.key] = op.n
		if c.size < 0 {
			s[c.key] = 0
		}
	}
	return s
}

// do writes to the store: one value as a stream, which makes a blob of a large
// one, more of them as a batch. Some ask for more than the mode of the store.
func (op killOp) do(store *db.DB) error {
	var o db.PutOptions
	if op.n%10 == 0 {
		o.Sync = db.SyncAlways
	}
	if c := op.changes[0]; len(op.changes) == 1 && c.size >= 0 {
		size := int64(c.size)
		if op.n%2 == 0 {
			size = -1
		}
		_, err := store.PutReader(context.Background(), killKey(op.writer, c.key), bytes.NewReader(op.value(c)), size, &o)
		return err
	}
	var b db.Batch
	for _, c := range op.changes {
		if key := killKey(op.writer, c.key); c.size < 0 {
			b.Delete(key)
		} else {
			b.Put(key, op.value(c), nil)
		}
	}
	return store.Apply(&b, &o)
}

// readKillStore reads all keys and verifies every byte.
func readKillStore(store *db.DB) (s killStore, err error) {
	keys := 0
	for w := range s {
		for k := range s[w] {
			value, err := store.Get(nil, killKey(w, k))
			if errors.Is(err, db.ErrNotFound) {
				continue
			}
			if err != nil {
				return s, err
			}
			if s[w][k], err = killNumber(w, k, value); err != nil {
				return s, err
			}
			keys++
		}
	}
	if n := store.Stats().Keys; n != keys {
		return s, fmt.Errorf("the store counts %d keys, of which %d are known", n, keys)
	}
	return s, nil
}

func killNumber(writer, key int, value []byte) (uint32, error) {
	if len(value) >= killHead {
		op := newKillOp(writer, binary.LittleEndian.Uint32(value[4:]))
		for _, c := range op.changes {
			if c.key == key && c.size >= 0 && bytes.Equal(value, op.value(c)) {
				return op.n, nil
			}
		}
	}
	return 0, fmt.Errorf("%s has %d bytes that were never written", killKey(writer, key), len(value))
}

// killOrder is what the child is told.
type killOrder struct {
	Sync        db.SyncMode
	SegmentSize int64
	Next        [killWriters]uint32
}

func (o killOrder) options() *db.Options {
	return &db.Options{Sync: o.Sync, SyncEvery: 2 * time.Millisecond, SegmentSize: o.SegmentSize, BlobSize: killBlob}
}

// beKilled opens the store in args[0], says what it finds and writes until it is
// killed. Each line is one system call, after the write it acknowledges.
func beKilled(args []string) error {
	var order killOrder
	if err := json.Unmarshal([]byte(args[1]), &order); err != nil {
		return err
	}
	fmt.Println("starting")
	store, err := db.Open(args[0], order.options())
	if err != nil {
		return err
	}
	found, err := readKillStore(store)
	if err != nil {
		return err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return err
	}
	fmt.Println("open " + string(text))
	failed := make(chan error)
	for w := range killWriters {
		go func() {
			for n := order.Next[w]; ; n++ {
				if err := newKillOp(w, n).do(store); err != nil {
					failed <- err
				}
				fmt.Println(w, n)
			}
		}()
	}
	return <-failed
}

// killing is one store that goes on across all kills.
type killing struct {
	t    *testing.T
	dir  string
	want killStore           // what was acknowledged, and what was found since
	next [killWriters]uint32 // the first operation that was not acknowledged

	kills, early, acks, found int // early: before the store was open
	files, segments, most     int // after a clean stop; most files ever
}

// TestKill: a process that is killed at any moment, also while it recovers from
// the kill before, loses nothing it had acknowledged in any mode: the kernel
// has it. What was under way is there whole or not at all, and what was deleted
// stays away. A reader without a writer sees what the next writer will, and a
// clean stop leaves no file that nobody needs.
//
// A child writes to a store that is folded and rotated all the time and tells
// what it did down a pipe, until it is killed 1 to 50 ms after its start.
// CROWFLY_KILLS says how often.
func TestKill(t *testing.T) {
	k := &killing{t: t, dir: t.TempDir(), next: [killWriters]uint32{1, 1, 1, 1}}
	kills := defaultKill
	if n, err := strconv.Atoi(os.Getenv("CROWFLY_KILLS")); err == nil {
		kills = n
	}
	start := time.Now()
	for k.kills < kills {
		k.round()
	}
	took := time.Since(start)
	t.Logf("%d kills in %v, %.1f a second, %d before the store was open", k.kills, took.Round(time.Millisecond),
		float64(k.kills)/took.Seconds(), k.early)
	t.Logf("%d writes acknowledged, %d found that were not; at most %d files", k.acks, k.found, k.most)
	if k.calm(); k.acks == 0 {
		t.Error("nothing was acknowledged")
	}
}

// round kills one child.
func (k *killing) round() {
	order := killOrder{
		Sync:        db.SyncAlways + db.SyncMode(rand.IntN(3)),
		SegmentSize: 4 << 10 << (2 * rand.IntN(5)),
		Next:        k.next,
	}
	text, err := json.Marshal(order)
	if err != nil {
		k.t.Fatal(err)
	}
	c := startChild(k.t, "killed", k.dir, string(text))
	if line := c.expect(); line != "starting" {
		k.t.Fatalf("child says %q", line)
	}
	delay := time.Millisecond + rand.N(49*time.Millisecond)
	if rand.IntN(3) == 0 {
		delay = rand.N(4 * time.Millisecond) // while it opens
	}
	time.AfterFunc(delay, func() { c.cmd.Process.Kill() })
	opened := k.listen(c)
	c.mustBeKilled()
	if k.kills++; !opened {
		k.early++
	}
	k.lookOn(opened)
	if k.kills%3 == 0 {
		k.reopen()
	}
	if k.t.Failed() {
		k.t.Fatalf("after kill %d, %+v, %v after its start", k.kills, order, delay)
	}
}

// listen hears what the child did, until it ends.
func (k *killing) listen(c *child) (opened bool) {
	for {
		line, ok := c.hear()
		if !ok {
			return opened
		}
		if state, ok := strings.CutPrefix(line, "open "); ok {
			var found killStore
			if err := json.Unmarshal([]byte(state), &found); err != nil || found != k.want {
				k.t.Errorf("the writer finds %v (%v), a reader saw %v", found, err, k.want)
			}
			opened = true
			continue
		}
		var w int
		var n uint32
		if _, err := fmt.Sscan(line, &w, &n); err != nil || n != k.next[w] {
			k.t.Fatalf("%q after %v: %v", line, k.next, err)
		}
		k.want[w] = newKillOp(w, n).apply(k.want[w])
		k.next[w]++
		k.acks++
	}
}

// lookOn reads the store while nobody writes, and decides on what was not
// acknowledged: one operation of each goroutine, if the child got that far. It
// is not tried again, so that it is noticed if it turns up later.
func (k *killing) lookOn(opened bool) {
	store, err := db.Open(k.dir, &db.Options{ReadOnly: true})
	if err != nil {
		k.t.Fatal(err)
	}
	defer store.Close()
	found, err := readKillStore(store)
	if err != nil {
		k.t.Fatal(err)
	}
	for w := range found {
		after := newKillOp(w, k.next[w]).apply(k.want[w])
		switch {
		case found[w] == k.want[w]:
		case opened && found[w] == after:
			k.found++
		default:
			k.t.Errorf("keys of goroutine %d have\n%v, acknowledged is\n%v, under way was %+v",
				w, found[w], k.want[w], newKillOp(w, k.next[w]))
		}
		if opened {
			k.next[w]++
		}
	}
	k.want = found
}

// reopen recovers the store, writes a little, which tidies up, and stops it
// cleanly. Then every file has a purpose.
func (k *killing) reopen() {
	store := k.open()
	if err := newKillOp(0, k.next[0]).do(store); err != nil {
		k.t.Fatal(err)
	}
	k.want[0] = newKillOp(0, k.next[0]).apply(k.want[0])
	k.next[0]++
	if err := store.Close(); err != nil {
		k.t.Fatal(err)
	}
	store = k.open()
	stats := store.Stats()
	if err := store.Close(); err != nil {
		k.t.Fatal(err)
	}
	k.checkFiles(stats)
}

// open opens the store, which has to contain what is known.
func (k *killing) open() *db.DB {
	store, err := db.Open(k.dir, &db.Options{SegmentSize: 4 << 20, BlobSize: killBlob})
	if err != nil {
		k.t.Fatal(err)
	}
	found, err := readKillStore(store)
	if err != nil || found != k.want {
		k.t.Errorf("the next writer finds %v (%v), should be %v", found, err, k.want)
	}
	return store
}

// calmRuns is after how many undisturbed runs the segments that the killed ones
// left have been folded into so few, however many kills there were.
const (
	calmRuns     = 30
	calmSegments = 30
)

func (k *killing) calm() {
	for range calmRuns {
		k.reopen()
	}
	k.t.Logf("%d files, %d of them segments, after %d undisturbed runs", k.files, k.segments, calmRuns)
	if k.segments > calmSegments {
		k.t.Errorf("%d segments after %d undisturbed runs", k.segments, calmRuns)
	}
}

func (k *killing) checkFiles(stats db.Stats) {
	files, err := os.ReadDir(k.dir)
	if err != nil {
		k.t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, f := range files {
		kind := f.Name()
		if i := strings.IndexAny(kind, ".-"); strings.HasPrefix(kind, "MANIFEST-") {
			kind = "MANIFEST"
		} else if i > 0 {
			kind = kind[i:]
		}
		kinds[kind]++
	}
	k.files, k.segments = len(files), kinds[".seg"]
	k.most = max(k.most, len(files))
	known := kinds["LOCK"] + kinds["MANIFEST"] + kinds[".seg"] + kinds[".blob"]
	if known != len(files) || kinds["MANIFEST"] > 2 ||
		kinds[".seg"] != len(stats.Segments) || kinds[".blob"] != stats.Blobs {
		k.t.Errorf("%d files after a clean stop, %v; %d segments, %d blobs", len(files), kinds, len(stats.Segments), stats.Blobs)
	}
}
