package segment

import "sync/atomic"

// chunkBits remembers which chunks of one value have been verified, one bit
// each. A lost update costs a second verification and nothing else.
type chunkBits []atomic.Uint64

func (b chunkBits) has(i int) bool { return b[i/64].Load()>>(i%64)&1 != 0 }
func (b chunkBits) set(i int)      { b[i/64].Or(1 << (i % 64)) }

// VerifyRange checks n bytes of the value of a chunked record, from offset
// from of the value, and remembers the chunks that passed. r comes from Read.
func (s *Segment) VerifyRange(r *Record, from, n int64) error {
	bits := s.chunkBits(r)
	size := r.Table.ChunkSize()
	for i := int(from / size); int64(i)*size < from+n; i++ {
		if bits.has(i) {
			continue
		}
		if err := r.Table.Verify(r.Value, i); err != nil {
			return s.corrupt(r.Offset, err)
		}
		bits.set(i)
	}
	return nil
}

// chunkBits finds the bits of a record. Those of a record that is not durable
// yet are thrown away: it may have to be read again from a disk that lost it.
func (s *Segment) chunkBits(r *Record) chunkBits {
	if found, ok := s.chunks.Load(r.Offset); ok {
		return found.(chunkBits)
	}
	bits := make(chunkBits, (r.Table.Chunks()+63)/64)
	if r.End <= s.synced.Load() {
		found, _ := s.chunks.LoadOrStore(r.Offset, bits)
		bits = found.(chunkBits)
	}
	return bits
}
