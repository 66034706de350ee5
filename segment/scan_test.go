package segment

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// TestScan promises that damage to one record hides no other, whichever byte it
// hits, and that whoever reads on is told what of the damaged record is proven.
// Method: bytes of every record shape are flipped one at a time.
func TestScan(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 8<<20)
	records := sampleRecords()
	var want []string
	for _, r := range records {
		w.Append(r)
		want = append(want, describe(r))
	}
	flush(t, w)
	data, err := disk.ReadFile(ID(1).FileName())
	if err != nil {
		t.Fatal(err)
	}
	salt := w.Segment().Salt()
	for p := range Scan(data, HeaderSize, salt) {
		if p.Err != nil || !p.Named || !p.Usable {
			t.Fatalf("undamaged: %+v", p)
		}
	}
	for i, r := range records {
		rest := slices.Concat(want[:i], want[i+1:])
		head := r.Offset + recordHead + int64(len(r.Key)+r.metaLen())
		for at := r.Offset; at < r.End; at += 1 + (r.End-r.Offset)/60 {
			damaged := bytes.Clone(data)
			damaged[at] ^= 0x10
			if err := scanDamaged(damaged, salt, r, rest, at >= head); err != nil {
				t.Fatalf("byte %d of record %d: %v", at-r.Offset, i, err)
			}
		}
	}
}

// TestScanPadding promises that a record with damaged padding is usable only if
// its value is whole.
func TestScanPadding(t *testing.T) {
	for _, alsoValue := range []bool{false, true} {
		disk := simdisk.New()
		w := newTestWriter(t, disk, 4096)
		w.Append(NewPut([]byte("key"), nil, []byte("a value")))
		w.Append(NewPut([]byte("next"), nil, []byte("value")))
		flush(t, w)
		data, err := disk.ReadFile(ID(1).FileName())
		if err != nil {
			t.Fatal(err)
		}
		for p := range Scan(bytes.Clone(data), HeaderSize, w.Segment().Salt()) {
			if string(p.Record.Key) != "key" {
				continue
			}
			if data[p.To-1] = 1; alsoValue {
				data[p.Record.ValueOffset()] ^= 1
			}
		}
		var seen []string
		for p := range Scan(data, HeaderSize, w.Segment().Salt()) {
			seen = append(seen, fmt.Sprintf("%s usable %v whole %v", p.Record.Key, p.Usable, p.Err == nil))
		}
		want := []string{fmt.Sprintf("key usable %v whole false", !alsoValue), "next usable true whole true"}
		if !slices.Equal(seen, want) {
			t.Errorf("value damaged %v: %q, want %q", alsoValue, seen, want)
		}
	}
}

// scanDamaged scans data in which r is damaged, behind its key if named.
func scanDamaged(data []byte, salt uint64, r *Record, rest []string, named bool) error {
	var got []string
	at := int64(HeaderSize)
	for p := range Scan(data, HeaderSize, salt) {
		if p.From != at || p.To <= p.From {
			return fmt.Errorf("piece from %d to %d after %d", p.From, p.To, at)
		}
		at = p.To
		switch {
		case p.Err == nil:
			got = append(got, describe(&p.Record))
		case p.From < r.Offset || p.From >= r.End || p.Named != named:
			return fmt.Errorf("damage from %d to %d, named %v: %v", p.From, p.To, p.Named, p.Err)
		case p.Named && !bytes.Equal(p.Record.Key, r.Key):
			return fmt.Errorf("key %q is called %q", r.Key, p.Record.Key)
		case p.Usable && (p.Err != errPadding || describe(&p.Record) != describe(r)):
			return fmt.Errorf("%v does not keep the record usable", p.Err)
		}
	}
	if at != int64(len(data)) || !slices.Equal(got, rest) {
		return fmt.Errorf("%d other records up to %d, should be %d up to %d", len(got), at, len(rest), len(data))
	}
	return nil
}
