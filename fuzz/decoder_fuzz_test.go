package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"reflect"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// FuzzMetadata promises that metadata which is accepted is written so that it
// reads the same again, and takes no more memory than it should.
func FuzzMetadata(f *testing.F) {
	for _, list := range [][]*segment.Record{ordinaryRecords(), specialRecords()} {
		for _, r := range list {
			f.Add(r.Meta)
		}
	}
	f.Add([]byte("\x01\x08\x00\x01\x02\x03\x04\x05\x06\x07\x08\x06\x05\x00md5\x00x\xf0\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m segment.Metadata
		var err error
		bounded(t, len(b), 8<<10, 100, func() { m, err = segment.DecodeMetadata(b) })
		if err != nil || len(b) > segment.MaxMeta-8 {
			return
		}
		again, err := m.Encode()
		check(t, err)
		if len(again) > len(b) {
			t.Errorf("%d bytes of metadata became %d", len(b), len(again))
		}
		m2, err := segment.DecodeMetadata(again)
		if err != nil || !reflect.DeepEqual(m, m2) {
			t.Errorf("accepted %+v, written and read %+v (%v)", m, m2, err)
		}
	})
}

// FuzzExtents promises the same for the list of blobs in a record.
func FuzzExtents(f *testing.F) {
	f.Add(specialRecords()[2].Value)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), 8<<10, 16, func() {
			list, size, err := segment.DecodeBlobExtents(b)
			if err != nil {
				return
			}
			for _, x := range list {
				size -= x.Length
			}
			if size != 0 || !bytes.Equal(segment.AppendBlobExtents(nil, list), b) {
				t.Errorf("%x became %+v, %d bytes too many", b, list, size)
			}
		})
	})
}

// FuzzBlob promises that whatever lies under the name of a blob, its bytes are
// shown only if the sums say so, and that nothing else is done than to read.
// Method: the input is the file, as it is or with a right header, and the
// extent that a record has of it; the sum of the table may be put right too.
func FuzzBlob(f *testing.F) {
	header := segment.Header{Magic: segment.MagicBlob, Store: segment.StoreID{1, 2, 3}, File: 7}
	for _, size := range []int{1, 100, 5000} {
		file := append(segment.AppendHeader(nil, header), make([]byte, 4096-segment.HeaderSize)...)
		value := bytes.Repeat([]byte{'v'}, size)
		file = append(append(file, value...), make([]byte, -size&7)...)
		f.Add(append(file, chunkTable(value, 20)...), uint64(size), true)
	}
	f.Add([]byte{}, uint64(1)<<40, false)
	f.Fuzz(func(t *testing.T, file []byte, length uint64, repair bool) {
		if len(file) > 1<<17 {
			t.Skip("no more to be learned from longer ones")
		}
		x := segment.BlobExtent{Blob: 7, Offset: 4096, Length: length % (segment.MaxValueLen + 1)}
		if repair && len(file) >= segment.HeaderSize {
			copy(file, segment.AppendHeader(nil, header))
			x.Sum = tableSum(file, x.Length)
		}
		disk := simdisk.New()
		disk.WriteFile(segment.ID(7).BlobName(), file)
		blob := segment.NewBlob(x, header.Store, segment.NewBlobCache(disk, 1))
		bounded(t, len(file), 16<<10, 4, func() { readBlob(t, blob, file) })
	})
}

// tableSum is the sum of what lies where the table of a blob of this length
// has to be.
func tableSum(file []byte, length uint64) uint64 {
	at := (4096 + length + 7) &^ 7
	end := at + 8 + 8*((length+1<<20-1)>>20)
	if end > uint64(len(file)) {
		return 0
	}
	return xxhash.Sum64(file[at:end])
}

func readBlob(t *testing.T, blob *segment.Blob, file []byte) {
	p, err := blob.Payload()
	var damage *segment.CorruptError
	if err != nil {
		if !errors.As(err, &damage) && !errors.Is(err, segment.ErrNewer) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("not explicit: %v", err)
		}
		return
	}
	n := p.Size
	value, err := p.Slice(0, n)
	if err != nil || n != int64(blob.Extent().Length) || !bytes.Equal(value, file[4096:4096+n]) {
		t.Fatalf("%d bytes that are not those of the file", n)
	}
	if err := p.Verify(0, n, true); err != nil {
		if !errors.As(err, &damage) {
			t.Errorf("not explicit: %v", err)
		}
		return
	}
	for i, chunk := 0, value; len(chunk) > 0; i++ {
		end := min(len(chunk), 1<<20)
		at := (4096 + n + 7) &^ 7
		if xxhash.Sum64(chunk[:end]) != binary.LittleEndian.Uint64(file[at+8+8*int64(i):]) {
			t.Fatalf("chunk %d has been accepted and is not what was written", i)
		}
		chunk = chunk[end:]
	}
	p.KeepAlive()
}
