package db_test

import (
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/crowfly/crowfly/db"
)

func Example() {
	dir, err := os.MkdirTemp("", "crowfly")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := db.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	if err := store.Put([]byte("tiles/7/66/42"), []byte("a map tile"), nil); err != nil {
		log.Fatal(err) // durable once Put has returned nil
	}
	err = store.View([]byte("tiles/7/66/42"), func(value []byte) error {
		fmt.Printf("%s\n", value) // a slice of the mapped file, valid in here
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: a map tile
}

func ExampleDB_Apply() {
	dir, _ := os.MkdirTemp("", "crowfly")
	defer os.RemoveAll(dir)
	store, err := db.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	var b db.Batch
	b.Put([]byte("new"), []byte("value"), &db.Metadata{ContentType: "text/plain"})
	b.Delete([]byte("old"))
	if err := store.Apply(&b, nil); err != nil { // both or neither
		log.Fatal(err)
	}
	_, err = store.Get(nil, []byte("old"))
	fmt.Println(errors.Is(err, db.ErrNotFound), b.Result(0).Existed)
	// Output: true false
}

func ExampleDB_Snapshot() {
	dir, _ := os.MkdirTemp("", "crowfly")
	defer os.RemoveAll(dir)
	store, err := db.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for _, key := range []string{"b/2", "a/1", "b/1", "c/1"} {
		if err := store.Put([]byte(key), []byte("value"), nil); err != nil {
			log.Fatal(err)
		}
	}

	snapshot, err := store.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	defer snapshot.Close()
	for key, entry := range snapshot.Prefix([]byte("b/"), nil) {
		fmt.Printf("%s %d\n", key, entry.Size())
	}
	// Output:
	// b/1 5
	// b/2 5
}
