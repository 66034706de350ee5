package segment

import (
	"container/list"
	"errors"
	"fmt"
	"path/filepath"
	"weak"

	"github.com/crowfly/crowfly/segment/lockorder"
	"github.com/crowfly/crowfly/segment/vfs"
)

// A blob is one large value in a file of its own:
//
//	offset 0      file header, 64 bytes, zero to 4096
//	offset 4096   value
//	              zero to a multiple of 8, ChunkTable
//
// Where the value ends, and the checksum of the table, is in the BlobExtent of
// the record that names the blob. A blob file is complete and synced before it
// gets its name, and it is never written again.
const blobValueOffset = pageSize

// Blob stands for a blob file. Every segment that has a record which names the
// blob holds its Blob; when nobody does any more, the file can go. The file is
// open only while it is used, see BlobCache.
type Blob struct {
	id     ID
	store  StoreID
	extent BlobExtent
	cache  *BlobCache

	mu   lockorder.Mutex[lockorder.BlobBits]
	bits chunkBits

	// Guarded by the lock of the cache.
	open  weak.Pointer[blobFile] // as long as anybody uses it
	kept  *blobFile              // by the cache
	moved *blobFile              // once it is in memory only; users have a copy, which is open
}

// NewBlob makes the Blob of an extent, which is the whole of it.
func NewBlob(x BlobExtent, store StoreID, cache *BlobCache) *Blob {
	return &Blob{id: x.Blob, store: store, extent: x, cache: cache}
}

// ID is the number of the file.
func (b *Blob) ID() ID { return b.id }

// Extent is what the records that name the blob say of it.
func (b *Blob) Extent() BlobExtent { return b.extent }

// Payload opens the blob, or finds it open, and returns its value. It fails
// with fs.ErrNotExist if the file is gone.
func (b *Blob) Payload() (Payload, error) {
	f, err := b.cache.open(b)
	if err != nil {
		return Payload{}, err
	}
	p := Payload{
		File: f.file, Offset: blobValueOffset, Size: int64(b.extent.Length), m: f.m,
		table: f.table, sum: b.extent.Sum, bits: b.verified(f.table), path: f.path, owner: f,
	}
	if f.m != nil {
		end := blobValueOffset + p.Size
		p.bytes = f.m.Bytes()[blobValueOffset:end:end]
	}
	return p, nil
}

// InUse reports whether anybody uses the blob, as far as collections have
// shown. After Forget the cache is not among them.
func (b *Blob) InUse() bool {
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	return b.open.Value() != nil
}

// Moved is how many bytes of memory the blob takes after Migrate, or 0.
func (b *Blob) Moved() int64 {
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	if b.moved == nil {
		return 0
	}
	return int64(len(b.moved.m.Bytes()))
}

// Migrate moves the blob to memory, for those who use it and those who will,
// so that its file can go. See vfs.Mapping.Migrate; a blob that is not mapped
// can't be moved.
func (b *Blob) Migrate() error {
	f, err := b.cache.open(b)
	if err != nil {
		return err
	}
	if f.m == nil {
		return fmt.Errorf("move %s to memory: it is not mapped: %w", f.path, errors.ErrUnsupported)
	}
	if err := f.m.Migrate(int64(len(f.m.Bytes()))); err != nil {
		return err
	}
	f.file.Drop()
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	b.moved = f.clone() // sabotage: remember-moved
	b.cache.forget(b.id)
	return nil
}

// verified returns the bits of the blob's chunks. They outlive its closing.
func (b *Blob) verified(t ChunkTable) chunkBits {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bits == nil {
		b.bits = newChunkBits(t)
	}
	return b.bits
}

// blobFile is an open blob. Whoever uses its bytes holds it; it is closed and
// its mapping retired by the collector.
type blobFile struct {
	file  vfs.File
	path  string
	m     *vfs.Mapping // nil if there was none left
	table ChunkTable
}

// clone returns the same open blob for others to hold.
func (f *blobFile) clone() *blobFile {
	c := *f
	return &c
}

// BlobCache bounds how many blobs are open that nobody uses. It keeps them open
// through their Blobs, so that the collection which finds that nobody holds a Blob
// finds its file too. It is safe for concurrent use.
type BlobCache struct {
	fs   vfs.FS
	most int

	mu    lockorder.Mutex[lockorder.BlobCache]
	files map[ID]*list.Element // of cached
	order *list.List           // most recently used first
}

type cached struct {
	id   ID
	blob weak.Pointer[Blob]
}

// NewBlobCache returns a cache that keeps up to most blobs open.
func NewBlobCache(fsys vfs.FS, most int) *BlobCache {
	return &BlobCache{fs: fsys, most: most, files: make(map[ID]*list.Element), order: list.New()}
}

func (c *BlobCache) open(b *Blob) (*blobFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.kept != nil {
		c.order.MoveToFront(c.files[b.id])
		return b.kept, nil
	}
	f := b.open.Value()
	if f == nil {
		var err error
		if f, err = c.reopen(b); err != nil {
			return nil, err
		}
		b.open = weak.Make(f)
	}
	if b.moved != nil {
		return f, nil // nothing to save by caching it
	}
	c.forget(b.id) // a Blob from before it
	b.kept = f
	c.files[b.id] = c.order.PushFront(cached{b.id, weak.Make(b)})
	if c.order.Len() > c.most {
		c.drop(c.order.Back())
	}
	return f, nil
}

// reopen is open for a blob that nobody has open.
func (c *BlobCache) reopen(b *Blob) (*blobFile, error) {
	if b.moved != nil {
		return b.moved.clone(), nil
	}
	return openBlob(c.fs, b)
}

// Forget drops a blob that is not needed any more.
func (c *BlobCache) Forget(id ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(id)
}

// Clear drops all blobs.
func (c *BlobCache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() > 0 {
		c.drop(c.order.Back())
	}
}

func (c *BlobCache) forget(id ID) {
	if e, ok := c.files[id]; ok {
		c.drop(e)
	}
}

func (c *BlobCache) drop(e *list.Element) {
	entry := c.order.Remove(e).(cached)
	delete(c.files, entry.id)
	if b := entry.blob.Value(); b != nil {
		b.kept = nil
	}
}

// openBlob opens a blob file, maps it unless mappings are scarce, which segments
// need more, and proves its chunk table.
func openBlob(fsys vfs.FS, b *Blob) (*blobFile, error) {
	file, err := fsys.Open(b.id.BlobName())
	if err != nil {
		return nil, err
	}
	f := &blobFile{file: file, path: filepath.Join(fsys.Path(), b.id.BlobName())}
	if err := f.load(b); err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

func (f *blobFile) load(b *Blob) error {
	if _, err := checkHeader(f.file, f.path, MagicBlob, b.id, b.store); err != nil {
		return err
	}
	size, err := f.file.Size()
	if err != nil {
		return err
	}
	end := blobValueOffset + int64(b.extent.Length)
	at := roundUp(end, alignment)
	want := at + chunkTableSize(b.extent.Length, blobChunkLog)
	if b.extent.Offset != blobValueOffset || size < want {
		return &CorruptError{f.path, size, fmt.Sprintf("file ends here, %d bytes are expected", want)}
	}
	if f.table, err = f.mapTable(at, want); err != nil {
		return err
	}
	if f.table.Sum() != b.extent.Sum {
		return &CorruptError{f.path, at, errTableSum.Error()}
	}
	if f.table.ChunkSize() != 1<<blobChunkLog {
		return &CorruptError{f.path, at, "chunk size"}
	}
	return nil
}

// mapTable maps the file and returns the table in it, or else a copy.
func (f *blobFile) mapTable(from, to int64) (ChunkTable, error) {
	err := vfs.ErrNoMaps
	if !vfs.MapsScarce(to) {
		f.m, err = f.file.Map(to)
	}
	switch {
	case err == nil:
		return ChunkTable(f.m.Bytes()[from:to:to]), nil
	case !errors.Is(err, vfs.ErrNoMaps):
		return nil, err // it names the file
	}
	table := make([]byte, to-from)
	if _, err := f.file.ReadAt(table, from); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	return table, nil
}
