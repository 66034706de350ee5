package fuzz

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// beObeying opens the store in args[0] in mode args[1], with a timer that never
// fires, says so, and does as it is told: "put N" writes N to all keys, "sync"
// syncs. It always answers how often the store has synced.
func beObeying(args []string) error {
	mode, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	store, err := db.Open(args[0], &db.Options{Sync: db.SyncMode(mode), SyncEvery: time.Hour, SegmentSize: 1 << 20, BlobSize: killBlob})
	if err != nil {
		return err
	}
	fmt.Println("open")
	return answer(func(line string) string {
		verb, number, _ := strings.Cut(line, " ")
		var err error
		switch verb {
		case "put":
			n, _ := strconv.Atoi(number)
			err = putEverywhere(store, n)
		case "sync":
			err = store.Sync()
		}
		if err != nil {
			return err.Error()
		}
		return strconv.FormatUint(store.Stats().Syncs, 10)
	})
}

// durableKeys get their values in this order, the last two together.
var durableKeys = []string{"first", "blob", "a", "b"}

func putEverywhere(store *db.DB, n int) error {
	if err := store.Put([]byte("first"), besideValue("first", n), nil); err != nil {
		return err
	}
	if _, err := store.PutReader(context.Background(), []byte("blob"), bytes.NewReader(besideValue("blob", n)), -1, nil); err != nil {
		return err
	}
	var b db.Batch
	b.Put([]byte("a"), besideValue("a", n), nil)
	b.Put([]byte("b"), besideValue("b", n), nil)
	return store.Apply(&b, nil)
}

// durability is a writer that does as it is told and a follower beside it.
type durability struct {
	t        *testing.T
	dir      string
	mode     db.SyncMode
	writer   *child
	follower *db.DB
	n        int // last number written
	certain  int // how often it was certain that nothing had been synced
}

// TestFollowerUnsynced: beside a writer that lives a follower shows everything of
// which the writer knows that it is synced, and nothing that is not, in modes in
// which writes are acknowledged before they are. Once the writer is killed it
// shows what the kernel has, as the next writer will, and that stays.
//
// The writer counts its syncs: if there was none from before a write to after a
// look, the write was not synced when the follower looked.
func TestFollowerUnsynced(t *testing.T) {
	for name, mode := range map[string]db.SyncMode{"interval": db.SyncInterval, "never": db.SyncNever} {
		t.Run(name, func(t *testing.T) {
			d := &durability{t: t, dir: t.TempDir(), mode: mode}
			d.start()
			d.follower = d.open()
			for range 4 {
				for range 5 {
					d.unsynced()
					d.synced()
				}
				d.settled()
				d.killed()
			}
			if d.certain < 10 {
				t.Errorf("only %d times it was certain that nothing had been synced", d.certain)
			}
			t.Logf("%d numbers; %d times it was certain that nothing had been synced", d.n, d.certain)
			closeStore(t, d.follower)
			d.writer.kill()
		})
	}
}

func (d *durability) start() {
	d.t.Helper()
	d.writer = startChild(d.t, "obeying", d.dir, strconv.Itoa(int(d.mode)))
	if got := d.writer.expect(); got != "open" {
		d.t.Fatal(got)
	}
}

func (d *durability) open() *db.DB {
	d.t.Helper()
	store, err := db.Open(d.dir, &db.Options{ReadOnly: true})
	if err != nil {
		d.t.Fatal(err)
	}
	return store
}

// tell returns the number of syncs afterwards.
func (d *durability) tell(order string) string {
	d.t.Helper()
	reply := d.writer.ask(order)
	if _, err := strconv.Atoi(reply); err != nil {
		d.t.Fatal(reply)
	}
	return reply
}

func (d *durability) put() string {
	d.t.Helper()
	d.n++
	return d.tell(fmt.Sprint("put ", d.n))
}

// shown is what the follower and one that was opened just now show of each key.
func (d *durability) shown() [][]int {
	d.t.Helper()
	if err := d.follower.Refresh(); err != nil {
		d.t.Fatal(err)
	}
	fresh := d.open()
	defer fresh.Close()
	var lists [][]int
	for _, store := range []*db.DB{d.follower, fresh} {
		list := make([]int, len(durableKeys))
		for i, key := range durableKeys {
			var err error
			if list[i], err = besideGet(store, key); err != nil {
				d.t.Fatal(err)
			}
		}
		lists = append(lists, list)
	}
	return lists
}

// mustShow makes sure that every key is in its place between two numbers.
func (d *durability) mustShow(what string, least, most int) {
	d.t.Helper()
	for i, list := range d.shown() {
		for _, n := range list {
			if n < least || n > most {
				d.t.Fatalf("%s: follower %d shows %v of %v, should be from %d to %d", what, i, list, durableKeys, least, most)
			}
		}
	}
}

// unsynced writes without a sync.
func (d *durability) unsynced() {
	d.t.Helper()
	from, before := d.n, d.tell("count")
	d.put()
	d.put()
	shown := d.shown()
	if d.tell("count") != before {
		return // one that an earlier sync had caused by way of the watermark
	}
	d.certain++
	for i, list := range shown {
		for _, n := range list {
			if n > from {
				d.t.Fatalf("follower %d shows %v of %v, but nothing was synced since %d", i, list, durableKeys, from)
			}
		}
	}
}

// synced syncs. The write after that proves it.
func (d *durability) synced() {
	d.t.Helper()
	synced := d.n
	before := d.tell("sync")
	d.put()
	d.mustShow("synced", synced, d.n)
	shown := d.shown()
	if d.tell("count") != before {
		return
	}
	d.certain++
	for i, list := range shown {
		if list[len(list)-1] > synced {
			d.t.Fatalf("follower %d shows %v of %v, only %d is synced", i, list, durableKeys, synced)
		}
	}
}

// settled syncs and waits for the watermark that proves it without a write.
func (d *durability) settled() {
	d.t.Helper()
	d.tell("sync")
	for range 1000 {
		if list := d.shown()[0]; list[len(list)-1] == d.n {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.mustShow("settled", d.n, d.n)
}

// killed kills the writer and starts another.
func (d *durability) killed() {
	d.t.Helper()
	d.unsynced()
	d.writer.kill()
	d.mustShow("killed", d.n, d.n)
	d.start()
	d.mustShow("restarted", d.n, d.n)
}
