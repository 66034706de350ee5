package db

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The benchmarks answer what one call costs when everything is in memory:
// values of 256 bytes under keys of 16, in random order.

func benchStore(b *testing.B, keys int) (*DB, [][]byte) {
	db, err := Open(b.TempDir(), &Options{Sync: SyncNever})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	list := make([][]byte, keys)
	for i := range list {
		list[i] = fmt.Appendf(nil, "%016x", rand.Uint64())
		if err := db.Put(list[i], make([]byte, 256), nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Sync(); err != nil {
		b.Fatal(err)
	}
	for _, key := range list { // the first use of a value verifies it
		if err := db.View(key, func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	rand.Shuffle(keys, func(i, j int) { list[i], list[j] = list[j], list[i] })
	return db, list
}

func BenchmarkView(b *testing.B) {
	db, keys := benchStore(b, 1_000_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		err := db.View(keys[i%len(keys)], func(value []byte) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	db, keys := benchStore(b, 1_000_000)
	b.ReportAllocs()
	var buf []byte
	for i := 0; b.Loop(); i++ {
		var err error
		if buf, err = db.Get(buf[:0], keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutUnsynced(b *testing.B) {
	db, keys := benchStore(b, 100_000)
	value := make([]byte, 256)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := db.Put(keys[i%len(keys)], value, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutSynced(b *testing.B) {
	db, keys := benchStore(b, 1000)
	value, o := make([]byte, 1024), &PutOptions{Sync: SyncAlways}
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := db.Put(keys[rand.IntN(len(keys))], value, o); err != nil {
				b.Error(err)
			}
		}
	})
}
