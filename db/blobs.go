package db

import (
	"fmt"
	"runtime"
	"weak"

	"github.com/crowfly/crowfly/index"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/lockorder"
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

	mu    lockorder.Mutex[lockorder.Blobs]
	known map[segment.ID]weak.Pointer[segment.Blob]
	named map[segment.ID]int  // records in the manifest's segments that name it
	dead  map[segment.ID]bool // no key names it
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
		named:   make(map[segment.ID]int),
		dead:    make(map[segment.ID]bool),
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
	for _, x := range list {
		if err := b.holdExtent(seg, r.Offset, x, store); err != nil {
			return err
		}
	}
	return nil
}

// holdExtent does it for one blob, which the record at off names.
func (b *blobs) holdExtent(seg *segment.Segment, off int64, x segment.BlobExtent, store segment.StoreID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	blob, err := b.agreed(seg, off, x)
	if err != nil {
		return err
	}
	if blob == nil {
		blob = segment.NewBlob(x, store, b.cache)
		b.known[x.Blob] = weak.Make(blob)
		vfs.Own(blob, release, lease{b, x.Blob})
	}
	seg.Hold(blob)
	return nil
}

// check refuses an extent that another record contradicts.
func (b *blobs) check(seg *segment.Segment, r *segment.Record, x segment.BlobExtent) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.agreed(seg, r.Offset, x)
	return err
}

// agreed returns the blob of an extent, nil if it is not known yet. It fails if
// another record than the one at off says something else of it. The caller
// holds mu.
func (b *blobs) agreed(seg *segment.Segment, off int64, x segment.BlobExtent) (*segment.Blob, error) {
	blob := b.known[x.Blob].Value()
	if blob != nil && blob.Extent() != x {
		return nil, otherExtent(seg, off, x, blob.Extent())
	}
	return blob, nil
}

func otherExtent(seg *segment.Segment, off int64, x, other segment.BlobExtent) error {
	return seg.Damage(off, fmt.Sprintf("%s is also said to be %+v, not %+v", x.Blob.BlobName(), other, x))
}

// count notes that so many more records of the manifest's segments name the
// blobs of r. Who removes no blobs need not count.
func (b *blobs) count(r *segment.Record, n int) {
	if r.Kind != segment.KindBlobRef || !b.removes {
		return
	}
	list, _, err := segment.DecodeBlobExtents(r.Value)
	if err != nil {
		return
	}
	for _, x := range list {
		b.countExtent(x, n)
	}
}

func (b *blobs) countExtent(x segment.BlobExtent, n int) {
	if !b.removes {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.named[x.Blob] += n; b.named[x.Blob] == 0 {
		delete(b.named, x.Blob)
	}
}

// publish shows the staged records to readers.
func (db *DB) publish() { db.bury(db.index.Publish(db.writer.staged, db.writer.seq)) }

// bury notes that no key names the blobs of these records any more. Their
// bytes are what a compaction of their segment frees.
func (db *DB) bury(dead []index.Location) {
	for _, at := range dead {
		r, err := at.Read()
		if err != nil {
			continue // it counts as live, and whoever compacts it finds the damage
		}
		list, _, _ := segment.DecodeBlobExtents(r.Value)
		db.blobs.bury(list)
		runtime.KeepAlive(at.Segment)
	}
}

func (b *blobs) bury(list []segment.BlobExtent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range list {
		b.dead[x.Blob] = true
	}
}

// bytes returns what the blobs of a segment take, and how much of it no key
// names.
func (b *blobs) bytes(seg *segment.Segment) (all, dead int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, blob := range seg.Blobs() {
		all += int64(blob.Extent().Length)
		dead += b.deadBytesLocked(blob)
	}
	return all, dead
}

// deadBytes is what a blob takes that no key names, or 0.
func (b *blobs) deadBytes(blob *segment.Blob) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.deadBytesLocked(blob)
}

func (b *blobs) deadBytesLocked(blob *segment.Blob) int64 {
	if !b.dead[blob.ID()] {
		return 0
	}
	return int64(blob.Extent().Length)
}

// stray reports whether a file is a blob that no record names. It is asked
// when all records are known and no put is under way.
func (b *blobs) stray(name string) bool {
	id, ok := segment.ParseBlobName(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	return ok && b.named[id] == 0
}

// remove takes the file of a blob away that somebody still reads, in memory,
// and that no segment of the manifest names any more.
func (b *blobs) remove(id segment.ID) {
	b.mu.Lock()
	named := b.named[id] > 0
	b.mu.Unlock()
	if b.removes && !named {
		b.fs.Remove(id.BlobName())
	}
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
	if l.blobs.forget(l.id) {
		l.blobs.fs.Remove(l.id.BlobName()) // outside the lock: the file may be large
	}
}

// forget ends what is known of a blob and reports whether its file can go.
func (b *blobs) forget(id segment.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[id].Value() != nil {
		return false // somebody has come to know it again
	}
	delete(b.known, id)
	delete(b.dead, id)
	b.cache.Forget(id)
	return b.removes && b.named[id] == 0
}

// extentsOf decodes the value of a blobref, verified: which file it names decides
// which files are kept.
func extentsOf(seg *segment.Segment, r *segment.Record) ([]segment.BlobExtent, error) {
	if err := r.VerifyValue(); err != nil {
		return nil, seg.Damage(r.Offset, fmt.Sprintf("key %q: %v", r.Key, err))
	}
	list, _, err := segment.DecodeBlobExtents(r.Value)
	if err == nil && len(list) != 1 {
		err = segment.ErrParts
	}
	if err != nil {
		return nil, seg.Damage(r.Offset, err.Error())
	}
	return list, nil
}
