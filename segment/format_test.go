package segment

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// What a Writer appends, a Scanner and a mapped reader return, of every shape.
func TestRecordsRoundTrip(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 4<<20)
	want := sampleRecords()
	for _, r := range want {
		w.Append(r)
	}
	flush(t, w)

	s, i := reopen(t, disk), 0
	for got, err := range s.Records(HeaderSize, s.Len()) {
		if err != nil {
			t.Fatal(err)
		}
		if err := got.VerifyValue(); err != nil {
			t.Fatal(err)
		}
		if describe(&got) != describe(want[i]) || !bytes.Equal(got.Value, want[i].Value) {
			t.Errorf("record %d: got %s, want %s", i, describe(&got), describe(want[i]))
		}
		if got.Flags&FlagAligned != 0 && got.ValueOffset()%pageSize != 0 {
			t.Errorf("aligned value at %d", got.ValueOffset())
		}
		i++
	}
	if i != len(want) {
		t.Errorf("read %d records of %d", i, len(want))
	}
	if w.Tally().Records != uint64(len(want)-1) || w.Tally().MinSeq != 1 {
		t.Errorf("tally %+v", w.Tally())
	}
}

// Every single flipped bit of every record is noticed, without a panic.
func TestFlippedBits(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 4<<20)
	for _, r := range sampleRecords() {
		if len(r.Value) < 10000 {
			w.Append(r)
		}
	}
	flush(t, w)
	data, err := disk.ReadFile(ID(1).FileName())
	if err != nil {
		t.Fatal(err)
	}
	salt := w.Segment().Salt()
	for off := int64(HeaderSize); off < int64(len(data)); {
		good, err := decode(data, off, salt)
		if err != nil {
			t.Fatal(err)
		}
		for i := off; i < good.End; i++ {
			for bit := range 8 {
				data[i] ^= 1 << bit
				r, err := decode(data, off, salt)
				if err == nil {
					err = r.VerifyValue()
				}
				if err == nil {
					t.Fatalf("bit %d of byte %d of record at %d: not noticed", bit, i-off, off)
				}
				data[i] ^= 1 << bit
			}
		}
		off = good.End
	}
}

// A record that lies where it was not written does not verify.
func TestMisplacedRecord(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 1<<16)
	w.Append(NewPut([]byte("a"), nil, []byte("first")))
	w.Append(NewPut([]byte("a"), nil, []byte("first")))
	flush(t, w)
	data, _ := disk.ReadFile(ID(1).FileName())
	first, _ := decode(data, HeaderSize, w.Segment().Salt())
	copy(data[first.End:], data[first.Offset:first.End])
	if _, err := decode(data, first.End, w.Segment().Salt()); err == nil {
		t.Error("a record moved to another offset verifies")
	}
	if _, err := decode(data, HeaderSize, w.Segment().Salt()+1); err == nil {
		t.Error("a record of another file verifies")
	}
}

// Lengths that lie are refused before they are used.
func TestAbsurdLengths(t *testing.T) {
	data := make([]byte, 4096)
	for _, valLen := range []uint64{1 << 62, math.MaxUint64, MaxValueLen, 1 << 33} {
		for i := range 8 {
			data[HeaderSize+32+i] = byte(valLen >> (8 * i))
		}
		for _, flags := range []Flags{0, FlagChunked, FlagAligned, FlagChunked | FlagAligned, FlagExpiry} {
			data[HeaderSize+29] = byte(flags)
			if _, err := decode(data, HeaderSize, 0); err == nil {
				t.Errorf("length %d with flags %x accepted", valLen, flags)
			}
		}
	}
}

func TestHeader(t *testing.T) {
	h := Header{Magic: MagicSegment, Store: testStore, File: 3, Salt: 4, Epoch: 5}
	b := AppendHeader(nil, h)
	if got, err := DecodeHeader(b, MagicSegment); err != nil || got != h {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := DecodeHeader(b, MagicBlob); err == nil {
		t.Error("wrong kind accepted")
	}
	for i := range b {
		b[i] ^= 4
		if _, err := DecodeHeader(b, MagicSegment); err == nil {
			t.Errorf("byte %d damaged: not noticed", i)
		}
		b[i] ^= 4
	}
}

// The metadata of a value comes back field by field, and fields of a newer
// version are kept.
func TestMetadata(t *testing.T) {
	for _, m := range []Metadata{
		{},
		{ContentType: "image/png", CacheControl: "no-cache", ContentEncoding: "gzip", ContentDisposition: "inline"},
		{Checksums: []Pair{{"md5", "\x00\x01"}}, User: []Pair{{"a", ""}, {"", "b"}, {"a", "2"}}, Unknown: []Pair{{"\xc8", "new"}}},
	} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeMetadata(b)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := got.Encode(); !bytes.Equal(again, b) {
			t.Errorf("got %+v, want %+v", got, m)
		}
		for n := range b {
			DecodeMetadata(b[:n]) // must not panic
		}
	}
	long := Metadata{ContentType: string(make([]byte, MaxMeta))}
	if _, err := long.Encode(); err == nil {
		t.Error("metadata longer than a record can hold was accepted")
	}
}

func TestBlobExtents(t *testing.T) {
	list := []BlobExtent{{1, 4096, 10, 11}, {2, 0, 5, 12}}
	got, size, err := DecodeBlobExtents(AppendBlobExtents(nil, list))
	if err != nil || size != 15 || len(got) != 2 || got[1] != list[1] {
		t.Errorf("got %v, %d, %v", got, size, err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 31), AppendBlobExtents(nil, []BlobExtent{{1, 0, math.MaxUint64, 0}})} {
		if _, _, err := DecodeBlobExtents(bad); err == nil {
			t.Errorf("%d bytes accepted", len(bad))
		}
	}
}

func TestNames(t *testing.T) {
	if id, ok := ParseFileName(ID(0xabc).FileName()); !ok || id != 0xabc {
		t.Error(id, ok)
	}
	if gen, ok := ParseManifestName(ManifestName(77)); !ok || gen != 77 {
		t.Error(gen, ok)
	}
	if !IsTempName(TempName(ManifestName(7))) || IsTempName("tmp-mine") || IsTempName(ManifestName(7)) {
		t.Error("temporary names")
	}
	for _, name := range []string{"", "abc.seg", "000000000000000G.seg", "000000000000ABCD.seg", "+00000000000abcd.seg", "LOCK"} {
		if _, ok := ParseFileName(name); ok {
			t.Errorf("%q taken for a segment", name)
		}
	}
}

func TestRef(t *testing.T) {
	for _, slot := range []int{0, 1, MaxSlots - 1} {
		for _, off := range []int64{HeaderSize, MaxStart - 8} {
			if r := MakeRef(slot, off); r.Slot() != slot || r.Offset() != off || r>>RefBits != 0 {
				t.Errorf("slot %d, offset %d: %x", slot, off, r)
			}
		}
	}
}

// A file of another store, another file and a newer one are told apart.
func TestOpenRefuses(t *testing.T) {
	disk := simdisk.New()
	newTestWriter(t, disk, 1<<16)
	name := ID(1).FileName()
	data, _ := disk.ReadFile(name)
	var damage *CorruptError
	if _, err := Open(disk, 1, StoreID{9}, WholeFile, 0); !errors.As(err, &damage) {
		t.Error("another store:", err)
	}
	disk.WriteFile(ID(2).FileName(), data)
	if _, err := Open(disk, 2, testStore, WholeFile, 0); !errors.As(err, &damage) {
		t.Error("another file:", err)
	}
	if _, err := Open(disk, 1, testStore, 5000, 0); !errors.As(err, &damage) || damage.Offset != HeaderSize {
		t.Error("file too short:", err)
	}
}

// TestNewPutOf promises that a value in pieces makes the record that it makes whole.
func TestNewPutOf(t *testing.T) {
	for _, n := range []int{0, 1, 100, 70 << 10, 1 << 20, 1<<20 + 1, 3 << 20} {
		value := make([]byte, n)
		for i := range value {
			value[i] = byte(i * 7)
		}
		whole := NewPut([]byte("k"), nil, value)
		for _, at := range []int{0, n / 3, n} {
			r := NewPutOf([]byte("k"), nil, [][]byte{value[:at], value[at : at+(n-at)/2], value[at+(n-at)/2:]})
			if r.Sum != whole.Sum || r.Flags != whole.Flags || string(r.Table) != string(whole.Table) || r.PutLen() != n {
				t.Errorf("%d bytes cut at %d: another record", n, at)
			}
		}
	}
}
