package segment

import (
	"runtime"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Payload is a value in its place, in a record or in a blob: mapped bytes, and
// where they lie in which file. Bytes and File are good until KeepAlive, or as
// long as the Payload itself is reachable as a whole.
type Payload struct {
	Bytes  []byte
	File   vfs.File
	Offset int64 // of Bytes in the file

	table ChunkTable // nil for a value with one sum
	sum   uint64
	bits  chunkBits // which chunks have been verified; nil if nobody remembers
	path  string
	owner any
}

// Payload of a record from Read that is not a blobref.
func (s *Segment) Payload(r *Record) Payload {
	p := Payload{Bytes: r.Value, File: s.file, Offset: r.ValueOffset(), sum: r.Sum, path: s.path, owner: s}
	if r.Flags&FlagChunked != 0 {
		p.table, p.bits = r.Table, s.chunkBits(r)
	}
	return p
}

// KeepAlive ends a use of Bytes or File.
func (p *Payload) KeepAlive() { runtime.KeepAlive(p.owner) }

// Chunked reports whether ranges are verified alone.
func (p *Payload) Chunked() bool { return p.table != nil }

// Verify checks n bytes from offset from on: the chunks they touch, or the
// whole value if it has one sum only. With remember, chunks that have passed
// before are taken as good.
func (p *Payload) Verify(from, n int64, remember bool) error {
	defer p.KeepAlive()
	if p.table == nil {
		if len(p.Bytes) > 0 && xxhash.Sum64(p.Bytes) != p.sum {
			return &CorruptError{p.path, p.Offset, errValueSum.Error()}
		}
		return nil
	}
	size := p.table.ChunkSize()
	for i := int(from / size); int64(i)*size < from+n; i++ {
		if remember && p.bits != nil && p.bits.has(i) {
			continue
		}
		if err := p.table.Verify(p.Bytes, i); err != nil {
			return &CorruptError{p.path, p.Offset + int64(i)*size, err.Error()}
		}
		if p.bits != nil {
			p.bits.set(i)
		}
	}
	return nil
}

// VerifyCopy checks a copy of the whole value.
func (p Payload) VerifyCopy(b []byte) error {
	p.Bytes, p.bits = b, nil
	return p.Verify(0, int64(len(b)), false)
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
