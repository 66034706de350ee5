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
	defaultChunkLog = 18 // 256 KiB
	minChunkLog     = 12
	maxChunkLog     = 30
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

// SumChunks computes the table of a value.
func SumChunks(value []byte) ChunkTable {
	t := make(ChunkTable, 0, chunkTableSize(uint64(len(value)), defaultChunkLog))
	t = binary.LittleEndian.AppendUint64(t, defaultChunkLog)
	for len(value) > 0 {
		n := min(len(value), 1<<defaultChunkLog)
		t = binary.LittleEndian.AppendUint64(t, xxhash.Sum64(value[:n]))
		value = value[n:]
	}
	return t
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

// Verify checks chunk i of the value.
func (t ChunkTable) Verify(value []byte, i int) error {
	size := t.ChunkSize()
	from := int64(i) * size
	chunk := value[from:min(from+size, int64(len(value)))]
	if xxhash.Sum64(chunk) != binary.LittleEndian.Uint64(t[8+8*i:]) {
		return fmt.Errorf("checksum of value bytes %d to %d", from, from+int64(len(chunk))-1)
	}
	return nil
}
