package db

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// TestOptionsAreObeyedOrRefused promises that Open takes no option that it bends,
// and says which one and what it takes.
func TestOptionsAreObeyedOrRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"Options.Sync", Options{Sync: 99}},
		{"Options.Sync", Options{Sync: -1}},
		{"Options.SyncEvery", Options{Sync: SyncInterval, SyncEvery: -1}},
		{"Options.SegmentSize", Options{SegmentSize: -5}},
		{"Options.SegmentSize", Options{SegmentSize: minSegmentSize - 1}},
		{"Options.SegmentSize", Options{SegmentSize: maxSegmentSize + 1}},
		{"Options.BlobSize", Options{BlobSize: 1}},
		{"Options.BlobSize", Options{BlobSize: -1}},
		{"Options.BlobSize", Options{BlobSize: maxBlobSize + 1}},
		{"Options.Verify", Options{Verify: 7}},
		{"Options.Verify", Options{Verify: -1}},
		{"Options.SpaceTarget", Options{SpaceTarget: 0.5}},
		{"Options.SpaceTarget", Options{SpaceTarget: -2}},
		{"Options.SpaceTarget", Options{SpaceTarget: math.NaN()}},
		{"Options.SpaceTarget", Options{SpaceTarget: math.Inf(1)}},
	} {
		for _, readOnly := range []bool{false, true} {
			disk := simdisk.New()
			c.o.FS, c.o.ReadOnly = disk, readOnly
			db, err := Open("", &c.o)
			if err == nil {
				db.Close()
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.name+" is ") {
				t.Errorf("%s %+v: %v", c.name, c.o, err)
			}
			if names := disk.Names(); len(names) > 0 {
				t.Errorf("%s: Open has made %q", c.name, names)
			}
		}
	}
	for _, o := range []Options{
		{SegmentSize: minSegmentSize, BlobSize: minBlobSize, SpaceTarget: minSpaceTarget, CompactionRate: -1, MaxPinned: -1},
		{SegmentSize: maxSegmentSize, BlobSize: maxBlobSize, SpaceTarget: 100, Sync: SyncInterval, SyncEvery: time.Hour, Verify: VerifyNever},
	} {
		o.FS = simdisk.New()
		open(t, "", &o)
	}
}

// TestInvalidArguments promises of every call that its caller got wrong that it is
// ErrInvalid, changes nothing, and says what is wrong once, with the operation and
// the key.
func TestInvalidArguments(t *testing.T) {
	db := open(t, "", &Options{FS: simdisk.New()})
	mustPut(t, db, "k", "before")
	some := Version{Seq: 1}
	key, long := []byte("k"), bytes.Repeat([]byte("k"), MaxKey+1)
	odd := &Metadata{ModTime: time.Date(2446, 1, 1, 0, 0, 0, 0, time.UTC)}
	apply := func(add func(*Batch), o *PutOptions) func() error {
		return func() error {
			var b Batch
			add(&b)
			return db.Apply(&b, o)
		}
	}
	put := func(b *Batch) { b.Put(key, []byte("after"), nil) }
	reader := func(key []byte, size int64, o *PutOptions) func() error {
		return func() error {
			_, err := db.PutReader(t.Context(), key, strings.NewReader("after"), size, o)
			return err
		}
	}
	for _, c := range []struct {
		do   func() error
		want string // a part of the message
	}{
		{func() error { return db.Put(nil, nil, nil) }, `put "": key must have`},
		{func() error { return db.Put(long, nil, nil) }, `(65536 bytes): key must have`},
		{func() error { return db.Put(key, nil, &PutOptions{Metadata: odd}) }, `put "k": modification time 2446`},
		{func() error { return db.Put(key, nil, &PutOptions{Sync: 99}) }, `put "k": PutOptions.Sync is 99`},
		{func() error { return db.Put(key, nil, &PutOptions{IfAbsent: true, IfMatch: &some}) }, `put "k": PutOptions.IfAbsent and IfMatch`},
		{func() error { return db.Delete(nil, nil) }, `delete "": key must have`},
		{func() error { return db.Delete(key, &PutOptions{Metadata: &Metadata{}}) }, `delete "k": Delete does not take PutOptions.Metadata`},
		{func() error { return db.Delete(key, &PutOptions{Sync: -1}) }, `delete "k": PutOptions.Sync is -1`},
		{reader(nil, 5, nil), `put "": key must have`},
		{reader(key, -2, nil), `put "k": a size of -2 bytes`},
		{reader(key, MaxValue+1, nil), `put "k": value is larger than the limit of 1099511627776 bytes: it has 1099511627777`},
		{reader(key, 5, &PutOptions{Metadata: odd}), `put "k": modification time 2446`},
		{reader(key, 5, &PutOptions{Sync: 99}), `put "k": PutOptions.Sync is 99`},
		{func() error { return db.Put(key, nil, &PutOptions{IfMatch: &Version{}}) }, `put "k": PutOptions.IfMatch is the zero Version`},
		{func() error { return db.Delete(key, &PutOptions{IfMatch: &Version{}}) }, `delete "k": PutOptions.IfMatch is the zero Version`},
		{reader(key, 5, &PutOptions{IfMatch: &Version{}}), `put "k": PutOptions.IfMatch is the zero Version`},
		{apply(func(b *Batch) { put(b); b.RequireAbsent(nil) }, nil), `require absent "": key must have`},
		{apply(func(b *Batch) { put(b); b.RequireVersion(long, some) }, nil), `(65536 bytes): key must have`},
		{apply(func(b *Batch) { put(b); b.RequireVersion(key, Version{}) }, nil), `require version "k": no value has the zero Version`},
		{func() error { return new(Batch).Put(nil, nil, nil) }, `put "": key must have`},
		{func() error { return new(Batch).Put(key, nil, odd) }, `put "k": modification time 2446`},
		{func() error { return new(Batch).Delete(nil) }, `delete "": key must have`},
		{func() error { return new(Batch).RequireAbsent(long) }, `(65536 bytes): key must have`},
		{func() error { return new(Batch).RequireVersion(nil, some) }, `require version "": key must have`},
		{apply(put, &PutOptions{IfAbsent: true}), "Apply does not take PutOptions.IfAbsent"},
		{apply(put, &PutOptions{IfMatch: &some}), "Apply does not take PutOptions.IfMatch"},
		{apply(put, &PutOptions{Metadata: &Metadata{}}), "Apply does not take PutOptions.Metadata"},
		{apply(put, &PutOptions{Sync: 99}), "PutOptions.Sync is 99"},
		{apply(func(b *Batch) { put(b); b.Put(nil, nil, nil) }, nil), `put "": key must have`},
		{apply(func(b *Batch) { put(b); b.Delete(long) }, nil), `(65536 bytes): key must have`},
		{apply(func(b *Batch) { put(b); b.Put(key, make([]byte, MaxBatchValue+1), nil) }, nil), `put "k": value is larger than the limit of 50331648 bytes: it has 50331649`},
		{apply(func(b *Batch) { put(b); b.Put(key, nil, odd) }, nil), `put "k": modification time 2446`},
	} {
		err := c.do()
		switch {
		case !errors.Is(err, ErrInvalid):
			t.Errorf("want %s, got %v", c.want, err)
		case !strings.Contains(err.Error(), c.want):
			t.Errorf("want %s, got %.200v", c.want, err)
		case strings.Count(err.Error(), `put "`)+strings.Count(err.Error(), `delete "`) > 1:
			t.Errorf("it repeats itself: %.200v", err)
		}
		if err := db.Health(); err != nil {
			t.Errorf("after %s: Health: %v", c.want, err)
		}
	}
	mustGet(t, db, "k", "before")
	for _, err := range []error{ErrNotFound, ErrPrecondition, ErrNoSpace, ErrReadOnly, ErrClosed} {
		if errors.Is(err, ErrInvalid) {
			t.Errorf("%v is an invalid argument", err)
		}
	}
}

// TestClampTime promises that what it returns can be stored, and is t if that can.
func TestClampTime(t *testing.T) {
	for _, at := range []time.Time{
		{}, time.Unix(0, 0), time.Now(), time.Unix(-1e10, 5), time.Unix(9223372037, 0), time.Unix(-9223372038, 0),
		time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(2446, 5, 10, 0, 0, 0, 0, time.UTC), time.Unix(1<<60, 0),
	} {
		got := ClampTime(at)
		if _, err := (&Metadata{ModTime: got}).Encode(); err != nil {
			t.Errorf("%v: %v", at, err)
		}
		if _, err := (&Metadata{ModTime: at}).Encode(); (err == nil) != got.Equal(at) {
			t.Errorf("%v became %v, though: %v", at, got, err)
		}
	}
}

// TestBatchRefuses promises that a batch which refused something is not applied,
// and is as good as new after Reset.
func TestBatchRefuses(t *testing.T) {
	db := open(t, "", &Options{FS: simdisk.New()})
	var b Batch
	if err := b.Put([]byte("k"), []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	refused := b.Put([]byte("bad"), nil, &Metadata{ModTime: time.Unix(1<<60, 0)})
	if err := db.Apply(&b, nil); err == nil || err != refused || b.Len() != 2 {
		t.Errorf("Apply: %v, Put: %v, %d operations", err, refused, b.Len())
	}
	mustBeGone(t, db, "k")
	b.Reset()
	if err := b.Put([]byte("k"), []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Apply(&b, nil); err != nil {
		t.Error(err)
	}
	mustGet(t, db, "k", "v")
}
