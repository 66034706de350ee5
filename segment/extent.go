package segment

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/crowfly/crowfly/segment/vfs"
)

// Extent is a value, or a part of it, resolved to a place in a file. Whoever
// reads the file holds what keeps it open: the Segment.
type Extent struct {
	File   vfs.File
	Offset int64 // bytes from the beginning of the file
	Length int64 // bytes
}

// BlobExtent is one piece of a value that lives in files of its own. A record
// of KindBlobRef has a list of them for its value:
//
//	0 u64 blob id   8 u64 offset   16 u64 length   24 u64 checksum
//
// A plain large value is one extent, a value uploaded in parts several. The
// value's size is the sum of the lengths.
type BlobExtent struct {
	Blob                ID
	Offset, Length, Sum uint64
}

const blobExtentSize = 32

// AppendBlobExtents appends the encoded list.
func AppendBlobExtents(b []byte, list []BlobExtent) []byte {
	le := binary.LittleEndian
	for _, x := range list {
		b = le.AppendUint64(b, uint64(x.Blob))
		b = le.AppendUint64(b, x.Offset)
		b = le.AppendUint64(b, x.Length)
		b = le.AppendUint64(b, x.Sum)
	}
	return b
}

// DecodeBlobExtents reads the value of a blobref record and the size of the
// value it stands for.
func DecodeBlobExtents(b []byte) (list []BlobExtent, size uint64, err error) {
	if len(b) == 0 || len(b)%blobExtentSize != 0 {
		return nil, 0, fmt.Errorf("extent list of %d bytes", len(b))
	}
	le := binary.LittleEndian
	for ; len(b) > 0; b = b[blobExtentSize:] {
		x := BlobExtent{ID(le.Uint64(b)), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}
		if x.Length > MaxValueLen || x.Offset > MaxValueLen || size+x.Length > MaxValueLen {
			return nil, 0, errors.New("extent out of bounds")
		}
		size += x.Length
		list = append(list, x)
	}
	return list, size, nil
}
