package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/crowfly/crowfly/db"
)

// metadata of a put: two of three values have none, the others all there can
// be. It says the number of the value.
func metadata(value uint16) *db.Metadata {
	if value%3 != 0 {
		return nil
	}
	number := fmt.Sprint(value)
	return &db.Metadata{
		ModTime:            time.Unix(int64(value), 0).UTC(),
		ContentType:        "value/" + number,
		CacheControl:       "max-age=" + number,
		ContentEncoding:    number,
		ContentDisposition: number,
		Checksums:          []db.Pair{{Name: "md5", Value: number}},
		User:               []db.Pair{{Name: "number", Value: number}, {Name: "empty"}},
	}
}

func checkMetadata(m db.Metadata, modified time.Time, value uint16, err error) error {
	want := db.Metadata{}
	if w := metadata(value); w != nil {
		want = *w
	}
	if err != nil || !reflect.DeepEqual(m, want) || !modified.Equal(want.ModTime) {
		return fmt.Errorf("metadata %+v of v%d, should be %+v (%v)", m, value, want, err)
	}
	return nil
}

// shelf is a store or a snapshot, to look for values in.
type shelf interface {
	View(key []byte, fn func([]byte) error) error
	Value(key []byte) (*db.Value, error)
}

// checkKey compares one key as View and Value show it.
func (s *session) checkKey(from shelf, k int, want uint16) error {
	key := keyBytes[k]
	found := uint16(0)
	err := from.View(key, func(b []byte) (err error) {
		found, err = s.ref.number(b)
		return err
	})
	v, errValue := from.Value(key)
	if want == 0 && errors.Is(err, db.ErrNotFound) && errors.Is(errValue, db.ErrNotFound) {
		return nil
	}
	if err = errors.Join(err, errValue); err != nil || found != want {
		return fmt.Errorf("View finds v%d, should be v%d (%v)", found, want, err)
	}
	return errors.Join(s.checkValue(v, want), v.Close())
}

func (s *session) checkValue(v *db.Value, want uint16) error {
	value := s.ref.values[want]
	b, err := v.Bytes()
	if err != nil || !bytes.Equal(b, value) || v.Size() != int64(len(value)) {
		return fmt.Errorf("Value has %d bytes, should be v%d (%v)", v.Size(), want, err)
	}
	if err := s.checkVersion(v.Version(), want); err != nil {
		return err
	}
	m, err := v.Metadata()
	return checkMetadata(m, v.ModTime(), want, err)
}

// heldValue is one that stays open while the history goes on.
type heldValue struct {
	value *db.Value
	want  uint16
}

// holdValue takes another one, if there is one, and lets go of the oldest of
// three.
func (s *session) holdValue(op operation) error {
	want := s.ref.now()[op.key]
	if want == 0 {
		return nil
	}
	v, err := s.store.Value(keyBytes[op.key])
	if err != nil {
		return err
	}
	s.values = append(s.values, heldValue{v, want})
	if len(s.values) < 3 {
		return nil
	}
	oldest := s.values[0]
	s.values = s.values[1:]
	return errors.Join(s.checkValue(oldest.value, oldest.want), oldest.value.Close())
}

// readPieces reads from a value here and there. A reader of the same bytes
// tells what has to come of it.
func (s *session) readPieces(op operation) error {
	want := s.ref.now()[op.key]
	if want == 0 {
		return nil
	}
	v, err := s.store.Value(keyBytes[op.key])
	if err != nil {
		return err
	}
	p := pieces{v, s.ref.values[want], bytes.NewReader(s.ref.values[want]), rand.New(rand.NewPCG(op.detail, 0))}
	steps := []func() error{p.seek, p.read, p.readAt, p.writeTo, p.part}
	for range 8 {
		if err := steps[p.IntN(len(steps))](); err != nil {
			return err
		}
	}
	return v.Close()
}

// pieces is a value that is read piece by piece, and a reader that does the
// same.
type pieces struct {
	v     *db.Value
	value []byte
	model *bytes.Reader
	*rand.Rand
}

// offset draws one around the value, mostly inside.
func (p pieces) offset() int64 { return p.Int64N(int64(len(p.value))+6) - 3 }

func (p pieces) seek() error {
	off, whence := p.offset(), p.IntN(4) // 3 is none
	if whence == io.SeekEnd {
		off = -off
	}
	got, err := p.v.Seek(off, whence)
	want, wantErr := p.model.Seek(off, whence)
	if (err == nil) != (wantErr == nil) || err == nil && got != want {
		return fmt.Errorf("Seek(%d, %d) is %d, %v; should be %d, %v", off, whence, got, err, want, wantErr)
	}
	return nil
}

func (p pieces) read() error {
	a, b := p.buffers()
	n, err := p.v.Read(a)
	wantN, wantErr := p.model.Read(b)
	return compare("Read", a[:n], b[:wantN], err, wantErr)
}

func (p pieces) readAt() error {
	a, b := p.buffers()
	off := p.offset()
	n, err := p.v.ReadAt(a, off)
	wantN, wantErr := p.model.ReadAt(b, off)
	return compare("ReadAt", a[:n], b[:wantN], err, wantErr)
}

func (p pieces) buffers() (a, b []byte) {
	n := 1 + p.IntN(2+len(p.value))
	return make([]byte, n), make([]byte, n)
}

func (p pieces) writeTo() error {
	var a, b bytes.Buffer
	_, err := p.v.WriteTo(&a)
	_, wantErr := p.model.WriteTo(&b)
	return compare("WriteTo", a.Bytes(), b.Bytes(), err, wantErr)
}

// part reads a part as a slice, and from the file it lies in.
func (p pieces) part() error {
	off, n := p.offset(), p.offset()
	inside := off >= 0 && n >= 0 && off+n <= int64(len(p.value))
	b, err := p.v.Range(off, n)
	x, errExtent := p.v.Extent(off, n)
	if (err == nil) != inside || (errExtent == nil) != inside {
		return fmt.Errorf("Range and Extent of %d+%d in %d bytes: %v, %v", off, n, len(p.value), err, errExtent)
	}
	if !inside {
		return nil
	}
	lie := make([]byte, n)
	_, err = x.File.ReadAt(lie, x.Offset)
	if err == io.EOF && n == 0 {
		err = nil
	}
	whole := p.v.Extents()
	if len(whole) != 1 || whole[0].Offset+off != x.Offset || whole[0].Length != int64(len(p.value)) {
		return fmt.Errorf("Extents %v, Extent from %d on is %v", whole, off, x)
	}
	want := p.value[off : off+n]
	return errors.Join(compare("Range", b, want, nil, nil), compare("Extent", lie, want, err, nil))
}

// compare wants the same bytes, and an error where there should be one. The
// end must be told as such.
func compare(what string, got, want []byte, err, wantErr error) error {
	if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) || (err == io.EOF) != (wantErr == io.EOF) {
		return fmt.Errorf("%s: %d bytes, %v; should be %d, %v", what, len(got), err, len(want), wantErr)
	}
	return nil
}
