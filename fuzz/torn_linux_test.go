package fuzz

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// Together the values are so large that most of the writer's time goes into one
// system call, in the midst of which a kill then finds it: mostly behind the
// first of them.
var tornValues = map[string]int{"a": 64 << 10, "b": 4 << 20}

// beTorn puts batches of two values, the bytes of which are the batch's number,
// into the store in args[0] until it is killed.
func beTorn(args []string) error {
	store, err := db.Open(args[0], &db.Options{Sync: db.SyncNever, SegmentSize: 64 << 20})
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		var b db.Batch
		for _, key := range []string{"a", "b"} {
			b.Put([]byte(key), bytes.Repeat([]byte{byte(n)}, tornValues[key]), nil)
		}
		if err := store.Apply(&b, nil); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKillTorn: a kill in the midst of writing a batch leaves all of it or
// nothing. A write of some megabytes ends where the kill found it. Whether one
// did can be told by the file being longer than what is valid in it. The test
// goes on until that has happened twice, at most ten times.
func TestKillTorn(t *testing.T) {
	torn, rounds := 0, 0
	for ; torn < 2 && rounds < 10; rounds++ {
		if killTorn(t, t.TempDir()) {
			torn++
		}
	}
	t.Logf("%d writes cut short by %d kills", torn, rounds)
}

func killTorn(t *testing.T, dir string) (torn bool) {
	c := startChild(t, "torn", dir)
	acknowledged := 0
	for {
		line, ok := c.hear()
		if !ok {
			break
		}
		if acknowledged++; line != strconv.Itoa(acknowledged) {
			t.Fatalf("%q after %d", line, acknowledged-1)
		}
		if acknowledged == 1 {
			time.AfterFunc(rand.N(15*time.Millisecond), func() { c.cmd.Process.Kill() })
		}
	}
	c.mustBeKilled()
	reader, err := db.Open(dir, &db.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	mustHaveBatch(t, reader, acknowledged)
	for _, s := range reader.Stats().Segments {
		if info, err := os.Stat(s.Path); err == nil && info.Size() > s.Length {
			torn = true
		}
	}
	store := openStore(t, dir)
	mustHaveBatch(t, store, acknowledged)
	closeStore(t, store)
	return torn
}

// mustHaveBatch makes sure that both keys have the values of the same batch, the
// last one that was acknowledged or the one after it.
func mustHaveBatch(t *testing.T, store *db.DB, acknowledged int) {
	t.Helper()
	found := make(map[string]byte)
	for key, size := range tornValues {
		value, err := store.Get(nil, []byte(key))
		if err != nil || len(value) != size || !bytes.Equal(value, bytes.Repeat(value[:1], size)) {
			t.Fatalf("%s has %d bytes: %v", key, len(value), err)
		}
		found[key] = value[0]
	}
	if n := int(found["a"]); found["b"] != found["a"] || n != acknowledged && n != acknowledged+1 {
		t.Errorf("the values are of batches %v, acknowledged are %d", found, acknowledged)
	}
}
