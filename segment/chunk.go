package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// ChunkedAbove is the value size in bytes from which a value carries a chunk
// table, so that a range of it can be verified without reading the rest.
const ChunkedAbove = 1 << 20

const (
	recordChunkLog = 18 // 256 KiB: of values in records
	blobChunkLog   = 20 // 1 MiB: of blobs, so that the table of 1 TiB is 8 MiB
	minChunkLog    = 12
	maxChunkLog    = 30
)

// A ChunkTable holds the checksums of a large value's chunks, as it lies on
// disk behind the value:
//
//	0 u64 log2 of the chunk size   8 u64 xxhash64 of chunk 0   16 chunk 1 ...
//
// The value checksum of the record is the xxhash64 of this table.
type ChunkTable []byte

// chunkTableSize is the length of the table for a value.
func chunkTableSize(valLen uint64, log uint) int64 {
	return 8 + 8*int64((valLen+1<<log-1)>>log)
}

// SumChunks computes the table of a value in a record.
func SumChunks(value []byte) ChunkTable { return sumChunks(value, nil) }

// sumChunks is SumChunks for a value in pieces.
func sumChunks(first []byte, rest [][]byte) ChunkTable {
	c := newChunkSummer(recordChunkLog)
	c.add(first)
	for _, piece := range rest {
		c.add(piece)
	}
	return c.finish()
}

// chunkSummer computes the table of a value that comes in pieces.
type chunkSummer struct {
	table ChunkTable
	sum   xxhash.Digest // of the chunk under way
	room  int64         // bytes that chunk still takes
}

func newChunkSummer(log uint) *chunkSummer {
	c := &chunkSummer{table: binary.LittleEndian.AppendUint64(nil, uint64(log)), room: 1 << log}
	c.sum.Reset()
	return c
}

func (c *chunkSummer) add(p []byte) {
	for len(p) > 0 {
		n := min(int64(len(p)), c.room)
		c.sum.Write(p[:n])
		p = p[n:]
		if c.room -= n; c.room == 0 {
			c.endChunk()
		}
	}
}

func (c *chunkSummer) endChunk() {
	c.table = binary.LittleEndian.AppendUint64(c.table, c.sum.Sum64())
	c.sum.Reset()
	c.room = c.table.ChunkSize()
}

func (c *chunkSummer) finish() ChunkTable {
	if c.room < c.table.ChunkSize() {
		c.endChunk()
	}
	return c.table
}

// readChunkLog bounds the first word of a table before anything uses it.
func readChunkLog(b []byte) (log uint, ok bool) {
	n := binary.LittleEndian.Uint64(b)
	return uint(n), minChunkLog <= n && n <= maxChunkLog
}

// Chunks is the number of chunks.
func (t ChunkTable) Chunks() int { return len(t)/8 - 1 }

// ChunkSize is the size in bytes of every chunk but the last.
func (t ChunkTable) ChunkSize() int64 { return 1 << binary.LittleEndian.Uint64(t) }

// Sum is the checksum of the value: that of the table.
func (t ChunkTable) Sum() uint64 { return xxhash.Sum64(t) }

// Verify checks chunk i of the value.
func (t ChunkTable) Verify(value []byte, i int) error {
	from, to := t.bounds(i, int64(len(value)))
	return t.check(value[from:to], i)
}

// bounds of chunk i in a value of so many bytes.
func (t ChunkTable) bounds(i int, size int64) (from, to int64) {
	from = int64(i) * t.ChunkSize()
	return from, min(from+t.ChunkSize(), size)
}

// check checks the bytes of chunk i.
func (t ChunkTable) check(chunk []byte, i int) error {
	if xxhash.Sum64(chunk) != binary.LittleEndian.Uint64(t[8+8*i:]) {
		from := int64(i) * t.ChunkSize()
		return fmt.Errorf("checksum of value bytes %d to %d", from, from+int64(len(chunk))-1)
	}
	return nil
}
