package db

import (
	"sync"
	"weak"

	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// blobs knows the values that lie in files of their own. A blob file stays as
// long as the manifest has a segment with a record that names it, dead or
// alive, and as long as anybody holds such a segment. Then its Blob is
// unreachable, and the cleanup of the Blob unlinks the file.
type blobs struct {
	fs      vfs.FS
	cache   *segment.BlobCache
	removes bool // false in a read-only store

	mu    sync.Mutex
	known map[segment.ID]weak.Pointer[segment.Blob]
	named map[segment.ID]naming
}

// naming is how many records in the manifest's segments name a blob of so many
// bytes.
type naming struct {
	records int
	size    int64
}

// openBlobs is how many blobs stay open, each with a descriptor and a mapping,
// when nobody uses them.
const openBlobs = 128

func newBlobs(fsys vfs.FS, removes bool) *blobs {
	return &blobs{
		fs:      fsys,
		cache:   segment.NewBlobCache(fsys, openBlobs),
		removes: removes,
		known:   make(map[segment.ID]weak.Pointer[segment.Blob]),
		named:   make(map[segment.ID]naming),
	}
}

// hold makes a segment hold the blobs of one of its records.
func (b *blobs) hold(seg *segment.Segment, r *segment.Record, store segment.StoreID) error {
	if r.Kind != segment.KindBlobRef {
		return nil
	}
	list, err := extentsOf(seg, r)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range list {
		blob := b.known[x.Blob].Value()
		if blob == nil {
			blob = segment.NewBlob(x, store, b.cache)
			b.known[x.Blob] = weak.Make(blob)
			vfs.Own(blob, release, lease{b, x.Blob})
		}
		seg.Hold(blob)
	}
	return nil
}

// count notes that so many more records of the manifest's segments name the
// blobs of r.
func (b *blobs) count(r *segment.Record, n int) {
	if r.Kind != segment.KindBlobRef {
		return
	}
	list, _, err := segment.DecodeBlobExtents(r.Value)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range list {
		now := naming{b.named[x.Blob].records + n, int64(x.Length)}
		b.named[x.Blob] = now
		if now.records == 0 {
			delete(b.named, x.Blob)
		}
	}
}

// total is the number of blobs that are named, and their bytes.
func (b *blobs) total() (count int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.named {
		bytes += n.size
	}
	return len(b.named), bytes
}

// stray reports whether a file is a blob that no record names. It is asked
// when all records are known and no put is under way.
func (b *blobs) stray(name string) bool {
	id, ok := segment.ParseBlobName(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	return ok && b.named[id].records == 0
}

// lease is what the cleanup of a Blob needs.
type lease struct {
	blobs *blobs
	id    segment.ID
}

// release ends the life of a blob that nobody holds. Unless the store was
// closed, or only this process forgot it, no segment names it any more, and
// what superseded it is durable: the compaction that removed the last such
// segment saw to that.
func release(l lease) {
	b := l.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[l.id].Value() != nil {
		return
	}
	delete(b.known, l.id)
	b.cache.Forget(l.id)
	if b.removes && b.named[l.id].records == 0 {
		b.fs.Remove(l.id.BlobName())
	}
}

// extentsOf decodes the value of a blobref.
func extentsOf(seg *segment.Segment, r *segment.Record) ([]segment.BlobExtent, error) {
	list, _, err := segment.DecodeBlobExtents(r.Value)
	if err == nil && len(list) != 1 {
		err = errParts
	}
	if err != nil {
		return nil, seg.Damage(r.Offset, err.Error())
	}
	return list, nil
}
