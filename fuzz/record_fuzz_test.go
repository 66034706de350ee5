package fuzz

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// fuzzHeader is the header that FuzzRecord puts before what it is given.
var fuzzHeader = segment.Header{
	Magic: segment.MagicSegment, Store: segment.StoreID{1, 2, 3}, File: 1, Salt: 0x0123456789abcdef,
}

// FuzzRecord promises that no bytes in a segment can make a reader go wrong,
// and that a record that is accepted is written with the same bytes again.
// Method: the input lies behind a valid header, as it is or with checksums put
// right, without which nothing gets far.
func FuzzRecord(f *testing.F) {
	for _, body := range recordSeeds(f) {
		f.Add(body, false)
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body []byte, repair bool) {
		if len(body) > 1<<16 {
			t.Skip("no more to be learned from longer ones")
		}
		file := append(segment.AppendHeader(nil, fuzzHeader), body...)
		if repair {
			repairSums(file, fuzzHeader.Salt)
		}
		disk := simdisk.New()
		disk.WriteFile(segment.ID(1).FileName(), file)
		seg, err := segment.Open(disk, 1, fuzzHeader.Store, segment.WholeFile, 0)
		check(t, err)

		var accepted []segment.Record
		var end int64
		const fixed, perByte = 64 << 10, 100
		bounded(t, len(file), fixed, perByte, func() { accepted, end = readRecords(t, seg, file) })
		checkTail(t, seg.RecoverTail(segment.HeaderSize), int64(len(file)))
		again := rewrite(t, accepted, end)
		if want := normal(file[:end], accepted); !bytes.Equal(normal(again, accepted), want) {
			t.Errorf("accepted\n%x\nwritten\n%x", want, again)
		}
	})
}

// readRecords reads records as far as they are accepted and does with them
// what the store does.
func readRecords(t *testing.T, seg *segment.Segment, file []byte) (list []segment.Record, end int64) {
	end = segment.HeaderSize
	for r, err := range seg.Records(end, seg.Len()) {
		if err != nil {
			break
		}
		if r.Offset != end || r.End <= end || r.End > int64(len(file)) || r.End%8 != 0 {
			t.Fatalf("record from %d to %d at %d", r.Offset, r.End, end)
		}
		if r.DurableTo > r.Offset || len(r.Key) == 0 && r.Kind < 128 && r.Kind != segment.KindWatermark {
			t.Fatalf("accepted %+v", r)
		}
		if !bytes.Equal(r.Value, file[r.ValueOffset():r.ValueOffset()+int64(len(r.Value))]) {
			t.Fatalf("value of the record at %d lies elsewhere", r.Offset)
		}
		_ = r.VerifyValue()
		_, _ = segment.DecodeMetadata(r.Meta)
		_, _, _ = segment.DecodeBlobExtents(r.Value)
		if len(r.Table) > 0 && len(r.Value) > 0 {
			payload := seg.Payload(&r)
			_ = payload.Verify(int64(len(r.Value)-1), 1, true)
		}
		list, end = append(list, r), r.End
	}
	return list, end
}

func checkTail(t *testing.T, tail segment.Tail, size int64) {
	if tail.Valid < segment.HeaderSize || tail.Valid > size || tail.Proven < segment.HeaderSize || tail.Proven > size {
		t.Fatalf("tail %+v of %d bytes", tail, size)
	}
}

// rewrite writes records to a new segment and returns the file.
func rewrite(t *testing.T, list []segment.Record, capacity int64) []byte {
	disk := simdisk.New()
	_, w, err := segment.Create(disk, 1, fuzzHeader.Store, 0, capacity)
	check(t, err)
	for i := range list {
		w.Append(&list[i])
	}
	check(t, w.Write())
	b, err := disk.ReadFile(segment.ID(1).FileName())
	check(t, err)
	return b
}

// normal blanks out what the file decides about and not the record: the
// header, and of each record its sum and durableTo.
func normal(file []byte, list []segment.Record) []byte {
	b := bytes.Clone(file)
	clear(b[:segment.HeaderSize])
	for _, r := range list {
		clear(b[r.Offset : r.Offset+16])
	}
	return b
}

// repairSums walks along what claim to be records and puts their checksums
// right. It says in other words what format.go says.
func repairSums(file []byte, salt uint64) {
	le := binary.LittleEndian
	for off := int64(segment.HeaderSize); off+48 <= int64(len(file)); {
		size, ok := segment.SizeAt(file, off)
		if !ok {
			return
		}
		head := file[off:]
		keyEnd := 48 + int(le.Uint16(head[24:]))
		metaEnd := keyEnd + int(le.Uint16(head[26:]))
		flags, length := segment.Flags(head[29]), int(le.Uint64(head[32:]))
		value := off + int64(metaEnd)
		if flags&segment.FlagAligned != 0 {
			value = (value + 4095) &^ 4095
		}
		sum := xxhash.Sum64(file[value : value+int64(length)])
		if flags&segment.FlagChunked != 0 {
			table := (value + int64(length) + 7) &^ 7
			sum = xxhash.Sum64(file[table : off+size])
		}
		if kind := segment.Kind(head[28]); kind == segment.KindPut || kind == segment.KindBlobRef {
			le.PutUint64(head[16:], sum)
		}
		var d xxhash.Digest
		d.ResetWithSeed(salt ^ uint64(off)*0x9e3779b97f4a7c15)
		d.Write(head[8:metaEnd])
		le.PutUint64(head, d.Sum64())
		off += size
	}
}

// recordSeeds are segments with records of every kind, without the header.
// FuzzRecord gives them one with another salt.
func recordSeeds(t testing.TB) (list [][]byte) {
	for _, records := range [][]*segment.Record{specialRecords(), ordinaryRecords()} {
		disk := simdisk.New()
		_, w, err := segment.Create(disk, 1, fuzzHeader.Store, 0, 64<<10)
		check(t, err)
		for _, r := range records {
			w.Append(r)
		}
		check(t, w.Write())
		b, err := disk.ReadFile(segment.ID(1).FileName())
		check(t, err)
		list = append(list, b[segment.HeaderSize:])
	}
	return list
}

func ordinaryRecords() []*segment.Record {
	meta, _ := (&segment.Metadata{ContentType: "text/plain", User: []segment.Pair{{Name: "a", Value: "b"}}}).Encode()
	list := []*segment.Record{
		segment.NewPut([]byte("key"), nil, []byte("value")),
		segment.NewPut([]byte("empty"), meta, nil),
		segment.NewDelete([]byte("key")),
		segment.NewWatermark(3),
		segment.NewPut([]byte("batch 1"), meta, bytes.Repeat([]byte("x"), 100)),
		segment.NewPut([]byte("batch 2"), nil, []byte{0}),
	}
	for i, r := range list {
		r.Seq = uint64(i + 1)
	}
	list[4].Left, list[5].Flags = 1, 0
	return list
}

// specialRecords are those that nothing writes yet.
func specialRecords() []*segment.Record {
	expiring := segment.NewPut([]byte("expiring"), nil, []byte("until 2033"))
	expiring.Flags, expiring.Expiry = expiring.Flags|segment.FlagExpiry, 2_000_000_000_000

	aligned := segment.NewPut([]byte("aligned"), nil, bytes.Repeat([]byte("page"), 25))
	aligned.Flags |= segment.FlagAligned

	ref := segment.NewPut([]byte("blob"), nil, segment.AppendBlobExtents(nil, []segment.BlobExtent{
		{Blob: 7, Offset: 4096, Length: 16 << 20, Sum: 0x1111},
		{Blob: 8, Offset: 4096, Length: 5, Sum: 0x2222},
	}))
	ref.Kind = segment.KindBlobRef

	skippable := segment.NewPut([]byte("of a later version"), nil, []byte("to be skipped"))
	skippable.Kind = 200

	list := []*segment.Record{expiring, aligned, ref, skippable}
	for i, r := range list {
		r.Seq = uint64(i + 1)
	}
	return list
}
