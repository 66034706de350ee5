package segment

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

var testStore = StoreID{1, 2, 3}

// newSegment creates a segment on a simulated disk.
func newTestWriter(t testing.TB, disk *simdisk.Disk, capacity int64) *Writer {
	t.Helper()
	_, w, err := Create(disk, 1, testStore, 7, capacity)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func flush(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Reserve(0, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(); err != nil {
		t.Fatal(err)
	}
}

func reopen(t testing.TB, disk *simdisk.Disk) *Segment {
	t.Helper()
	s, err := Open(disk, 1, testStore, WholeFile, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sampleRecords is one record of every shape that the format knows.
func sampleRecords() []*Record {
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, ChunkedAbove+1000)
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	meta, err := (&Metadata{ContentType: "text/plain", User: []Pair{{"name", "value"}}}).Encode()
	if err != nil {
		panic(err)
	}
	expiring := NewPut([]byte("expiring"), meta, []byte("soon gone"))
	expiring.Flags |= FlagExpiry
	expiring.Expiry = 1893456000000
	aligned := NewPut([]byte("aligned"), nil, []byte("begins a page"))
	aligned.Flags |= FlagAligned
	blob := NewPut([]byte("blob"), nil, AppendBlobExtents(nil, []BlobExtent{{9, 4096, 20 << 30, 77}}))
	blob.Kind = KindBlobRef
	copied := NewPut([]byte("copied"), nil, []byte("from elsewhere"))
	copied.Flags |= FlagCopied
	records := []*Record{
		NewPut([]byte("k"), nil, nil),
		NewPut([]byte("key"), meta, []byte("value")),
		NewPut([]byte{0, 255}, nil, value[:5000]),
		NewPut([]byte("large"), meta, value),
		NewDelete([]byte("key")),
		expiring, aligned, blob, copied,
		NewWatermark(9),
	}
	for i, r := range records {
		if r.Kind != KindWatermark {
			r.Seq = uint64(i + 1)
		}
	}
	return records
}

func describe(r *Record) string {
	return fmt.Sprintf("%d %x %q %x seq %d sum %x expiry %d %d bytes", r.Kind, r.Flags, r.Key, r.Meta, r.Seq, r.Sum, r.Expiry, len(r.Value))
}
