package segment

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Payload is a value in its place, in a record or in a blob: where it lies in
// which file, and as a rule mapped. Slices of it and File are good until
// KeepAlive, or as long as the Payload itself is reachable as a whole.
//
// Methods that touch the mapping may fault. The caller guards.
type Payload struct {
	File   vfs.File
	Offset int64 // of the value in the file
	Size   int64

	bytes []byte       // nil if the value is not mapped
	m     *vfs.Mapping // of bytes
	table ChunkTable   // nil for a value with one sum
	sum   uint64
	bits  chunkBits // which chunks have been verified; nil if nobody remembers
	path  string
	owner any
}

// Payload of a record from Read that is not a blobref.
func (s *Segment) Payload(r *Record) Payload {
	p := Payload{
		File: s.file, Offset: r.ValueOffset(), Size: int64(len(r.Value)),
		bytes: r.Value, m: s.m, sum: r.Sum, path: s.path, owner: s,
	}
	if r.Flags&FlagChunked != 0 {
		p.table, p.bits = r.Table, s.chunkBits(r)
	}
	return p
}

// KeepAlive ends a use of a slice or of File.
func (p *Payload) KeepAlive() { runtime.KeepAlive(p.owner) }

// Mapped reports whether the value is mapped. One that is not, a large one for
// which there was no mapping left, is read with system calls.
func (p *Payload) Mapped() bool { return p.m != nil }

// Slice returns n bytes from offset from on, of the mapping or, if the value is
// not mapped, a copy.
func (p *Payload) Slice(from, n int64) ([]byte, error) {
	if p.Mapped() {
		return p.bytes[from : from+n : from+n], nil
	}
	if err := fitsMemory(n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	return b, p.ReadAt(b, from)
}

// ReadAt fills b with what is at offset from.
func (p *Payload) ReadAt(b []byte, from int64) error {
	defer p.KeepAlive()
	if p.Mapped() {
		copy(b, p.bytes[from:])
		return nil
	}
	n, err := p.File.ReadAt(b, p.Offset+from)
	switch {
	case n == len(b):
		return nil
	case err == io.EOF:
		return &CorruptError{p.path, p.Offset + from + int64(n), "file ends here"}
	}
	return fmt.Errorf("read %s at offset %d: %w", p.path, p.Offset+from, err)
}

// Append appends a copy of the value to dst and verifies the copy.
func (p *Payload) Append(dst []byte) ([]byte, error) {
	const step = 4 << 20
	if err := fitsMemory(int64(len(dst)) + p.Size); err != nil {
		return dst, err
	}
	whole := slices.Grow(dst, int(p.Size))[:len(dst)+int(p.Size)]
	value := whole[len(dst):]
	for from := int64(0); from < p.Size; from += step {
		n := min(step, p.Size-from)
		if err := p.populate(from, n); err != nil {
			return dst, err
		}
		if err := p.ReadAt(value[from:from+n], from); err != nil {
			return dst, err
		}
	}
	found := *p
	found.bytes, found.m, found.bits = value, nil, nil
	if err := found.verify(0, p.Size, false, found.inMemory); err != nil { // sabotage: verify-value
		return dst, err
	}
	return whole, nil
}

// fitsMemory refuses a slice that a process of 32 bits can't have.
func fitsMemory(n int64) error {
	if int64(int(n)) != n {
		return fmt.Errorf("%d bytes are more than a slice holds in a %d-bit process, read parts", n, strconv.IntSize)
	}
	return nil
}

// populate brings in what is about to be touched.
func (p *Payload) populate(from, n int64) error {
	if !p.Mapped() {
		return nil
	}
	return p.m.Populate(p.Offset+from, n)
}

// Chunked reports whether ranges are verified alone.
func (p *Payload) Chunked() bool { return p.table != nil }

// Verify checks n bytes from offset from on: the chunks they touch, or the
// whole value if it has one sum only. With remember, chunks that have passed
// before are taken as good.
func (p *Payload) Verify(from, n int64, remember bool) error {
	defer p.KeepAlive()
	if p.Mapped() {
		return p.verify(from, n, remember, p.inMapping)
	}
	var chunk []byte
	return p.verify(from, n, remember, func(from, to int64) ([]byte, error) {
		if chunk == nil {
			chunk = make([]byte, min(p.table.ChunkSize(), p.Size))
		}
		return chunk[:to-from], p.ReadAt(chunk[:to-from], from)
	})
}

// inMapping is the bytes of a chunk, brought in.
func (p *Payload) inMapping(from, to int64) ([]byte, error) {
	return p.bytes[from:to], p.m.Populate(p.Offset+from, to-from)
}

// inMemory is the bytes of a chunk of a copy.
func (p *Payload) inMemory(from, to int64) ([]byte, error) { return p.bytes[from:to], nil }

// verify is Verify of the bytes that read returns.
func (p *Payload) verify(from, n int64, remember bool, read func(from, to int64) ([]byte, error)) error {
	if p.table == nil {
		return p.verifyWhole(read)
	}
	size := p.table.ChunkSize()
	for i := int(from / size); int64(i)*size < from+n; i++ {
		if remember && p.bits != nil && p.bits.has(i) {
			continue
		}
		start, end := p.table.bounds(i, p.Size)
		chunk, err := read(start, end)
		if err != nil {
			return err
		}
		if err := p.table.check(chunk, i); err != nil {
			return &CorruptError{p.path, p.Offset + start, err.Error()}
		}
		if p.bits != nil {
			p.bits.set(i)
		}
	}
	return nil
}

func (p *Payload) verifyWhole(read func(from, to int64) ([]byte, error)) error {
	if p.Size == 0 {
		return nil
	}
	value, err := read(0, p.Size)
	if err == nil && xxhash.Sum64(value) != p.sum {
		err = &CorruptError{p.path, p.Offset, errValueSum.Error()}
	}
	return err
}

// chunkBits remembers which chunks of one value have been verified, one bit
// each. A lost update costs a second verification and nothing else.
type chunkBits []atomic.Uint64

func newChunkBits(t ChunkTable) chunkBits { return make(chunkBits, (t.Chunks()+63)/64) }

func (b chunkBits) has(i int) bool { return b[i/64].Load()>>(i%64)&1 != 0 }
func (b chunkBits) set(i int)      { b[i/64].Or(1 << (i % 64)) }

// chunkBits finds the bits of a record. One that is not durable yet has none:
// it may have to be read again from a disk that lost it.
func (s *Segment) chunkBits(r *Record) chunkBits {
	if r.End > s.synced.Load() {
		return nil
	}
	if found, ok := s.chunks.Load(r.Offset); ok {
		return found.(chunkBits)
	}
	found, _ := s.chunks.LoadOrStore(r.Offset, newChunkBits(r.Table))
	return found.(chunkBits)
}
