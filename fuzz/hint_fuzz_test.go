package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// FuzzHint promises that no bytes in a hint can make a reader go wrong, and
// that a hint that is written says what the segment holds. Method: the input
// makes the records of a segment, whose hint is compared with them; and it
// takes the place of what the hint holds between its header and its footer, as
// it is or with the checksums put right, without which nothing gets far.
func FuzzHint(f *testing.F) {
	for _, list := range [][]*segment.Record{specialRecords(), ordinaryRecords()} {
		disk := simdisk.New()
		seg, _ := hintedSegment(f, disk, list)
		hint, err := disk.ReadFile(seg.ID().HintName())
		check(f, err)
		f.Add(hint[segment.HeaderSize:], false)
		f.Add(hint[segment.HeaderSize:], true)
		f.Add(hint[segment.HeaderSize:len(hint)-hintFooter], true)
	}
	f.Fuzz(func(t *testing.T, body []byte, repair bool) {
		if len(body) > 1<<16 {
			t.Skip("no more to be learned from longer ones")
		}
		disk := simdisk.New()
		seg, tally := hintedSegment(t, disk, recordsFrom(body))
		wantHint(t, disk, seg, tally)

		hint, err := disk.ReadFile(seg.ID().HintName())
		check(t, err)
		forged := append(bytes.Clone(hint[:segment.HeaderSize]), body...)
		if repair {
			forged = append(forged, hint[len(hint)-hintFooter:]...)
			repairHint(forged, seg.Salt())
		}
		disk.WriteFile(seg.ID().HintName(), forged)
		readForged(t, disk, seg, tally, len(forged))
	})
}

const hintFooter = 96

// recordsFrom makes records of bytes: keys of the lengths they say, puts and
// tombstones.
func recordsFrom(b []byte) (list []*segment.Record) {
	for seq := uint64(1); len(b) >= 2; seq++ {
		n := min(1+int(b[1]>>2), len(b)-1)
		r := segment.NewPut(b[1:1+n], nil, b[:1])
		if b[0]%4 == 0 {
			r = segment.NewDelete(b[1 : 1+n])
		}
		r.Seq = seq ^ uint64(b[0]>>6)
		list, b = append(list, r), b[1+n:]
	}
	return list
}

// hintedSegment writes a segment and its hint.
func hintedSegment(t testing.TB, disk *simdisk.Disk, list []*segment.Record) (*segment.Segment, segment.Tally) {
	_, w, err := segment.Create(disk, 1, fuzzHeader.Store, 0, 16<<20)
	check(t, err)
	for _, r := range list {
		w.Append(r)
	}
	check(t, w.Write())
	check(t, addHint(disk, w.Segment(), w.Tally()))
	return w.Segment(), w.Tally()
}

func addHint(disk vfs.FS, seg *segment.Segment, tally segment.Tally) error {
	file, err := disk.Create(seg.ID().HintName())
	if err != nil {
		return err
	}
	return errors.Join(seg.WriteHint(file, tally), file.Sync(), file.Close())
}

// wantHint compares the hint of a segment with its records.
func wantHint(t *testing.T, disk *simdisk.Disk, seg *segment.Segment, tally segment.Tally) {
	newest := make(map[string]segment.Record)
	for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
		check(t, err)
		if r.Kind.Indexed() && newest[string(r.Key)].Seq <= r.Seq {
			newest[string(r.Key)] = r
		}
	}
	h, err := segment.OpenHint(disk, seg, tally)
	check(t, err)
	defer h.Close()
	for h.Next() {
		e := h.Entry()
		r := newest[string(e.Key)]
		if r.Seq != e.Seq || r.Kind != e.Kind || r.Offset != e.Offset || r.End != e.Offset+e.Size || r.Flags != e.Flags || r.Expiry != e.Expiry {
			t.Fatalf("%+v is said to be %+v", r, e)
		}
		delete(newest, string(e.Key))
	}
	check(t, h.Err())
	_, err = h.Extents()
	check(t, err)
	if len(newest) > 0 {
		t.Fatalf("the hint lacks %v", newest)
	}
}

// readForged reads a hint that may be anything.
func readForged(t *testing.T, disk *simdisk.Disk, seg *segment.Segment, tally segment.Tally, size int) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := readHint(disk, seg, tally)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > uint64(4*size+1<<20) {
		t.Errorf("%d bytes allocated for %d: %v", n, size, err)
	}
}

func readHint(disk *simdisk.Disk, seg *segment.Segment, tally segment.Tally) error {
	h, err := segment.OpenHint(disk, seg, tally)
	if err != nil {
		return err
	}
	defer h.Close()
	var last []byte
	for n := 0; h.Next(); n++ {
		e := h.Entry()
		if bytes.Compare(e.Key, last) <= 0 || len(e.Key) > segment.MaxKey {
			panic(fmt.Sprintf("key %q after %q", e.Key, last))
		}
		if e.Offset < segment.HeaderSize || e.Offset%8 != 0 || e.Size <= 0 || e.Offset+e.Size > seg.Len() || !e.Kind.Indexed() {
			panic(fmt.Sprintf("entry %+v of a segment of %d bytes", e, seg.Len()))
		}
		last = append(last[:0], e.Key...)
	}
	if h.Err() != nil {
		return h.Err()
	}
	_, err = h.Extents()
	return err
}

// repairHint walks along what claim to be blocks and puts their checksums, and
// the footer, right.
func repairHint(b []byte, salt uint64) {
	le := binary.LittleEndian
	sum := func(off, size int) uint64 {
		var d xxhash.Digest
		d.ResetWithSeed(salt ^ uint64(off)*0x9e3779b97f4a7c15)
		d.Write(b[off+8 : off+size])
		return d.Sum64()
	}
	end := len(b) - hintFooter
	footer := b[end:]
	var sums, entries uint64
	off := segment.HeaderSize
	for off+16 <= end {
		size := 16 + int(le.Uint32(b[off+8:]))
		if off+size > end {
			break
		}
		le.PutUint64(b[off:], sum(off, size))
		sums = sums<<1 | sums>>63
		sums ^= le.Uint64(b[off:])
		entries += uint64(le.Uint32(b[off+12:]))
		off += size
	}
	le.PutUint64(footer[48:], entries)
	le.PutUint64(footer[56:], 0)
	le.PutUint64(footer[64:], uint64(off))
	le.PutUint64(footer[72:], sums)
	le.PutUint64(footer, sum(end, hintFooter))
}
