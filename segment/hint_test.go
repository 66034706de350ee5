package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// tallyOf counts the records of a segment.
func tallyOf(t testing.TB, s *Segment) (tally Tally) {
	for r, err := range s.Records(HeaderSize, s.Len()) {
		if err != nil {
			t.Fatal(err)
		}
		tally.Add(&r)
	}
	return tally
}

// writeTestHint gives segment 1 of a disk its hint.
func writeTestHint(t testing.TB, disk *simdisk.Disk) (*Segment, Tally) {
	t.Helper()
	s := reopen(t, disk)
	tally := tallyOf(t, s)
	file, err := disk.Create(s.ID().HintName())
	if err == nil {
		err = errors.Join(s.WriteHint(file, tally), file.Sync())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, tally
}

// readTestHint reads the whole hint of a segment.
func readTestHint(s *Segment, disk *simdisk.Disk, tally Tally) (entries []HintEntry, extents []HintExtent, err error) {
	h, err := OpenHint(disk, s, tally)
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	for h.Next() {
		e := *h.Entry()
		e.Key = bytes.Clone(e.Key)
		entries = append(entries, e)
	}
	if h.Err() != nil {
		return entries, nil, h.Err()
	}
	extents, err = h.Extents()
	return entries, extents, err
}

// newestOf is what the hint of a segment has to say, found in another way.
func newestOf(t testing.TB, s *Segment) (entries []HintEntry, extents []HintExtent) {
	newest := make(map[string]HintEntry)
	for r, err := range s.Records(HeaderSize, s.Len()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == KindBlobRef {
			list, _, _ := DecodeBlobExtents(r.Value)
			for _, x := range list {
				extents = append(extents, HintExtent{r.Offset, x})
			}
		}
		if r.Kind.Indexed() && newest[string(r.Key)].Seq <= r.Seq {
			newest[string(r.Key)] = HintEntry{bytes.Clone(r.Key), r.Seq, r.Kind, r.Flags, r.Expiry, r.Offset, r.End - r.Offset}
		}
	}
	for _, e := range newest {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b HintEntry) int { return bytes.Compare(a.Key, b.Key) })
	return entries, extents
}

func sameEntry(a, b HintEntry) bool {
	same := bytes.Equal(a.Key, b.Key)
	a.Key, b.Key = nil, nil
	return same && fmt.Sprint(a) == fmt.Sprint(b)
}

// sampleHint makes a segment with records of every shape, many of them dead,
// out of order, and with keys that need blocks of their own.
func sampleHint(t testing.TB, records int) *simdisk.Disk {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 64<<20)
	rng := rand.New(rand.NewPCG(7, uint64(records)))
	list := sampleRecords()
	for i := range records {
		key := fmt.Appendf(nil, "shared by all/%0*d", rng.IntN(30), rng.IntN(records))
		switch i % 10 {
		case 3:
			list = append(list, NewDelete(key))
		case 5:
			list = append(list, NewBlobRef(key, nil, []BlobExtent{{ID(i), 4096, 20 << 20, rng.Uint64()}}))
		default:
			list = append(list, NewPut(key, nil, make([]byte, rng.IntN(60))))
		}
	}
	if records >= 100 {
		list = append(list, NewPut(bytes.Repeat([]byte("k"), MaxKey), nil, nil), NewPut(bytes.Repeat([]byte("k"), MaxKey-1), nil, nil))
	}
	for i, seq := range rng.Perm(len(list)) {
		if list[i].Kind != KindWatermark {
			list[i].Seq = uint64(1000 + seq)
		}
		w.Append(list[i])
	}
	flush(t, w)
	return disk
}

// A hint says of each key where its newest record lies, and which blobs are
// named at all. Method: segments of several sizes, whose hints are compared
// with what a map makes of the records.
func TestHintSaysWhatTheSegmentHolds(t *testing.T) {
	for _, records := range []int{0, 1, 300, 20_000} {
		disk := sampleHint(t, records)
		s, tally := writeTestHint(t, disk)
		entries, extents, err := readTestHint(s, disk, tally)
		if err != nil {
			t.Fatal(err)
		}
		wantEntries, wantExtents := newestOf(t, s)
		if !slices.EqualFunc(entries, wantEntries, sameEntry) {
			t.Errorf("%d records: %d entries differ from the %d wanted", records, len(entries), len(wantEntries))
		}
		if !slices.Equal(extents, wantExtents) || len(extents) == 0 {
			t.Errorf("%d records: extents %v, want %v", records, extents, wantExtents)
		}
	}
}

// A segment with no record but watermarks has an empty hint.
func TestHintOfEmptySegment(t *testing.T) {
	disk := simdisk.New()
	w := newTestWriter(t, disk, 1<<20)
	w.Append(NewWatermark(0))
	flush(t, w)
	s, tally := writeTestHint(t, disk)
	entries, extents, err := readTestHint(s, disk, tally)
	if err != nil || len(entries)+len(extents) > 0 {
		t.Errorf("%v %v %v", entries, extents, err)
	}
}

// A hint is of use for one segment only. Method: the hint is asked for by
// segments and tallies that differ in one point each.
func TestHintIsBound(t *testing.T) {
	disk := sampleHint(t, 300)
	s, tally := writeTestHint(t, disk)
	for name, c := range map[string]struct {
		change func(s *Segment, want *Tally)
	}{
		"store":   {func(s *Segment, _ *Tally) { s.header.Store[3]++ }},
		"salt":    {func(s *Segment, _ *Tally) { s.header.Salt++ }},
		"length":  {func(s *Segment, _ *Tally) { s.end.Add(-8) }},
		"records": {func(_ *Segment, want *Tally) { want.Records++ }},
		"min seq": {func(_ *Segment, want *Tally) { want.MinSeq++ }},
		"max seq": {func(_ *Segment, want *Tally) { want.MaxSeq++ }},
		"sum":     {func(_ *Segment, want *Tally) { want.Sum++ }},
	} {
		other, want := reopen(t, disk), tally
		c.change(other, &want)
		if h, err := OpenHint(disk, other, want); err == nil {
			h.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	data, _ := disk.ReadFile(s.ID().HintName())
	disk.WriteFile(ID(2).HintName(), data)
	other := reopen(t, disk)
	other.id = 2
	if h, err := OpenHint(disk, other, tally); err == nil {
		h.Close()
		t.Error("id: accepted")
	}
}

// Of a damaged hint nothing is believed but what was read before the damage.
// Method: each bit of a hint, and each length; whatever entries come must be
// those of the whole hint, and without an error all of them.
func TestHintDamage(t *testing.T) {
	disk := sampleHint(t, 20)
	s, tally := writeTestHint(t, disk)
	name := s.ID().HintName()
	data, err := disk.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	wantEntries, _, err := readTestHint(s, disk, tally)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		disk.WriteFile(name, data)
		entries, extents, err := readTestHint(s, disk, tally)
		if err == nil {
			t.Fatalf("%s: accepted", what)
		}
		if len(entries) > len(wantEntries) || !slices.EqualFunc(entries, wantEntries[:len(entries)], sameEntry) || extents != nil {
			t.Fatalf("%s: wrong entries", what)
		}
	}
	for bit := range 8 * len(data) {
		b := bytes.Clone(data)
		b[bit/8] ^= 1 << (bit % 8)
		check(fmt.Sprintf("bit %d of byte %d", bit%8, bit/8), b)
	}
	for n := range len(data) + 200 {
		if n != len(data) {
			check(fmt.Sprintf("length %d", n), append(bytes.Clone(data), make([]byte, 200)...)[:n])
		}
	}
}

// A damaged segment gets no hint, and neither does one that is not what it
// should be.
func TestNoHintOfDamagedSegment(t *testing.T) {
	disk := sampleHint(t, 20)
	s := reopen(t, disk)
	tally := tallyOf(t, s)
	file, err := disk.Create("somewhere")
	if err != nil {
		t.Fatal(err)
	}
	wrong := tally
	wrong.Records--
	var damage *CorruptError
	if err := s.WriteHint(file, wrong); !errors.As(err, &damage) {
		t.Errorf("with another tally: %v", err)
	}
	data, _ := disk.ReadFile(s.ID().FileName())
	for what, at := range map[string]int{"header": HeaderSize + 40, "extents": strings.Index(string(data), "\x00\x10\x00\x00")} {
		b := bytes.Clone(data)
		b[at] ^= 1
		disk.WriteFile(s.ID().FileName(), b)
		if err := reopen(t, disk).WriteHint(file, tally); !errors.As(err, &damage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A hint whose checksums are right and whose contents are not is refused.
// Method: the writer itself is told to write what is wrong in one point.
func TestHintForged(t *testing.T) {
	disk := sampleHint(t, 20)
	s := reopen(t, disk)
	tally := tallyOf(t, s)
	for name, forge := range map[string]func(w *hintWriter){
		"nothing":         func(w *hintWriter) {},
		"an entry more":   func(w *hintWriter) { w.footer.entries++ },
		"an extent more":  func(w *hintWriter) { w.footer.extents++ },
		"sum of the sums": func(w *hintWriter) { w.footer.sums++ },
		"order":           func(w *hintWriter) { slices.Reverse(w.items) },
		"a key twice":     func(w *hintWriter) { w.items = append(w.items, w.items[0]) },
		"extent outside":  func(w *hintWriter) { w.extents[0].Offset = s.Len() },
		"extent too long": func(w *hintWriter) { w.extents[0].Length = MaxValueLen + 1 },
	} {
		file, err := disk.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w := &hintWriter{seg: s, file: file, off: HeaderSize}
		if err := w.collect(); err != nil {
			t.Fatal(err)
		}
		forge(w)
		if err := w.write(); err != nil {
			t.Fatal(err)
		}
		data, _ := disk.ReadFile(name)
		h := s.header
		h.Magic = MagicHint
		disk.WriteFile(s.ID().HintName(), append(AppendHeader(nil, h), data[HeaderSize:]...))
		if _, _, err := readTestHint(s, disk, tally); (err == nil) != (name == "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
