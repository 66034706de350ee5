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

// openBenchStore is the directory of a closed store with a million keys in
// segments of the default size.
func openBenchStore(b *testing.B, hints bool) string {
	dir := b.TempDir()
	db, err := Open(dir, &Options{Sync: SyncNever})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1_000_000 {
		if err := db.Put(fmt.Appendf(nil, "tenant-0001/%016x", rand.Uint64()), make([]byte, 256), nil); err != nil {
			b.Fatal(i, err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	if db, err = Open(dir, nil); err != nil {
		b.Fatal(err)
	}
	if hints {
		hintAll(b, db)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func BenchmarkOpen(b *testing.B) {
	for _, hints := range []bool{false, true} {
		b.Run(fmt.Sprintf("hints=%v", hints), func(b *testing.B) {
			dir := openBenchStore(b, hints)
			for b.Loop() {
				db, err := Open(dir, nil)
				if err == nil {
					err = db.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteHint(b *testing.B) {
	db, err := Open(openBenchStore(b, false), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	e := db.manifests.Current().Segments[0]
	for b.Loop() {
		if err := db.writeHint(db.index.Segments().Find(e.ID), e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(e.Tally.Records), "records")
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

// BenchmarkLend and BenchmarkValue do what a server does before it answers.
func BenchmarkLend(b *testing.B) {
	db, keys := benchStore(b, 100_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		err := db.Lend(keys[i%len(keys)], func(v Lent) error {
			_, err := v.Metadata()
			if err == nil {
				_, err = v.Range(0, v.Size())
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValue(b *testing.B) {
	db, keys := benchStore(b, 100_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		v, err := db.Value(keys[i%len(keys)])
		if err == nil {
			_, err = v.Metadata()
		}
		if err == nil {
			_, err = v.Range(0, v.Size())
		}
		if err != nil {
			b.Fatal(err)
		}
		v.Close()
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
