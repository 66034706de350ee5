package fuzz

import (
	"bytes"
	"fmt"
	"iter"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// hinted returns the same store with a hint for each segment, so that Open does
// not notice what is wrong with a record. All segments are sealed, so their
// length is that of the file.
func (v victim) hinted(t testing.TB) victim {
	disk := v.disk.Clone()
	for _, name := range disk.Names() {
		id, ok := segment.ParseFileName(name)
		if !ok {
			continue
		}
		h, err := segment.ReadHeader(disk, id)
		check(t, err)
		seg, err := segment.Open(disk, id, h.Store, segment.WholeFile, 0)
		check(t, err)
		var tally segment.Tally
		for r, err := range seg.Records(segment.HeaderSize, seg.Len()) {
			check(t, err)
			tally.Add(&r)
		}
		check(t, addHint(disk, seg, tally))
	}
	return victim{disk: disk.Clone(), want: v.want}
}

// TestDamageHinted promises of a store with hints what other tests do of those
// without, and that a hint is not needed: whatever is done to one, all is there.
// Method: bits of every file are flipped, it is cut off or made longer, and
// sectors of it are lost.
func TestDamageHinted(t *testing.T) {
	v := newVictim(t, true).hinted(t)
	hints := 0
	for _, name := range v.disk.Names() {
		_, isHint := segment.ParseHintName(name)
		if isHint {
			hints++
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, other := range v.damages(t, name) {
				if refused, err := other.judge(); err != nil || refused && isHint {
					t.Fatalf("%s: refused %v, %v", what, refused, err)
				}
			}
		})
	}
	if hints < 4 {
		t.Errorf("%d hints", hints)
	}
}

// damages iterates over what may happen to a file.
func (v victim) damages(t *testing.T, name string) iter.Seq2[string, victim] {
	const sector = 512
	behind := bytes.Repeat([]byte{0xa5}, 1000)
	content, err := v.disk.ReadFile(name)
	check(t, err)
	bits, lengths := stride(t, 997), stride(t, 199)
	return func(yield func(string, victim) bool) {
		for bit := 0; bit < 8*len(content); bit += bits {
			other := v.damaged(name, func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b })
			if !yield(fmt.Sprintf("bit %d of byte %d", bit%8, bit/8), other.before(int64(bit/8))) {
				return
			}
		}
		for n := 0; n < len(content)+len(behind); n += lengths {
			other := v.damaged(name, func(b []byte) []byte { return append(b, behind...)[:n] })
			if !yield(fmt.Sprintf("length %d of %d", n, len(content)), other.before(int64(n))) {
				return
			}
		}
		for at := 0; at < len(content); at += sector {
			end := min(at+sector, len(content))
			other := v.damaged(name, func(b []byte) []byte { clear(b[at:end]); return b })
			if !yield(fmt.Sprintf("sector at %d lost", at), other.before(int64(end))) {
				return
			}
		}
	}
}

// TestDamageHintHistory promises that the hint of one history of a segment is
// not used for another, whose later keys it would hide. Method: a store was
// copied while it wrote; both copies seal the same file, at different lengths,
// and the shorter one's hint goes to the other.
func TestDamageHintHistory(t *testing.T) {
	late := victim{disk: simdisk.New(), want: make(map[string]string)}
	store, err := db.Open("", &db.Options{FS: late.disk})
	check(t, err)
	write := func(from, to int) {
		for i := from; i < to; i++ {
			late.put(t, store, fmt.Sprintf("key %d", i), "value")
		}
		late.disk.Advance(watermark)
	}
	write(0, 20)
	early := victim{disk: late.disk.Clone()}
	write(10, 30)
	check(t, store.Close())

	store, err = db.Open("", &db.Options{FS: early.disk})
	check(t, err)
	check(t, store.Close())
	name := segment.ID(1).HintName()
	hint, err := early.hinted(t).disk.ReadFile(name)
	check(t, err)
	late.disk.WriteFile(name, hint)
	if refused, err := late.judge(); refused || err != nil {
		t.Errorf("refused %v, %v", refused, err)
	}
}
