package fuzz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// bounded fails if do allocates more than fixed plus so much for every byte of
// the input: what a file says must not decide how much memory it takes.
func bounded(t *testing.T, input, fixed, perByte int, do func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	most := uint64(fixed + perByte*input)
	if got := after.TotalAlloc - before.TotalAlloc; got > most && !underRace {
		t.Errorf("%d bytes allocated for an input of %d bytes, %d are allowed", got, input, most)
	}
}

// A container is a whole directory in one input, for FuzzRecovery. Of each file
// it has
//
//	u8 kind and number, see containerName   u16 length   contents
//
// and the last one may be cut off.
const containerHead = 3

var containerKinds = []func(n uint64) string{
	func(n uint64) string { return segment.ID(n).FileName() },
	func(n uint64) string { return segment.ID(n).BlobName() },
	segment.ManifestName,
	func(n uint64) string { return segment.TempName(segment.ManifestName(n)) },
	func(n uint64) string { return segment.TempName(segment.ID(n).BlobName()) },
	func(n uint64) string { return segment.LockName },
	func(n uint64) string { return fmt.Sprintf("%016X.seg", n+160) },
	func(n uint64) string { return fmt.Sprint("tmp-", n) },
}

// containerName is the name for the first byte: 3 bits of kind, 5 of number.
func containerName(b byte) string { return containerKinds[b>>5](uint64(b & 31)) }

func unpack(b []byte) *simdisk.Disk {
	disk := simdisk.New()
	for len(b) >= containerHead {
		name, n := containerName(b[0]), int(binary.LittleEndian.Uint16(b[1:]))
		b = b[containerHead:]
		n = min(n, len(b))
		disk.WriteFile(name, b[:n])
		b = b[n:]
	}
	return disk
}

// pack is the inverse of unpack, for files it can name. Of a manifest it takes
// one image, without what fills the page: small inputs make fuzzing fast.
func pack(disk *simdisk.Disk) (b []byte) {
	for selector := range 256 {
		file, err := disk.ReadFile(containerName(byte(selector)))
		if err != nil || selector>>5 == 5 && selector&31 != 0 {
			continue
		}
		if _, ok := segment.ParseManifestName(containerName(byte(selector))); ok {
			body := int(binary.LittleEndian.Uint32(file[segment.HeaderSize:]))
			file = file[:segment.HeaderSize+8+body+8]
		}
		b = append(b, byte(selector))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(file)))
		b = append(b, file...)
	}
	return b
}

// FuzzRecovery promises that Open comes to an end in any directory: with an
// error and no change, or with a store that can be read, closed and opened
// again with the same contents, and that has kept every segment of its
// manifest as it was. Method: the input is a directory, as it is or with
// everything put right that checksums and cross-references would refuse.
func FuzzRecovery(f *testing.F) {
	for _, v := range []victim{smallVictim(f), fewFiles(f, 1), killedVictim(f)} {
		f.Add(pack(v.disk), false)
		f.Add(pack(v.disk), true)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, input []byte, repair bool) {
		if len(input) > 1<<17 {
			t.Skip("no more to be learned from longer ones")
		}
		disk := unpack(input)
		if repair {
			repairDirectory(disk)
		}
		bounded(t, len(input), 2*judgeFixed, judgePerByte, func() { judgeDirectory(t, disk) })
	})
}

func judgeDirectory(t *testing.T, disk *simdisk.Disk) {
	named := namedSegments(disk)
	shown, err := contentsOf(disk.Clone(), true)
	readable := err == nil
	checkExplicit(t, disk, err)

	before, changed := filesOf(disk), changes(disk)
	found, err := contentsOf(disk, false)
	checkExplicit(t, disk, err)
	if err != nil {
		if changes(disk) != changed || !maps.Equal(before, filesOf(disk)) {
			t.Errorf("refused, but changed something: %v", err)
		}
		return
	}
	if readable && !maps.Equal(shown, found) {
		t.Errorf("a reader sees %.200q, the writer %.200q", shown, found)
	}
	after := filesOf(disk)
	for name := range named {
		if after[name] != before[name] {
			t.Errorf("%s of %d bytes has been changed or removed", name, len(before[name]))
		}
	}
	for range 2 {
		again, err := contentsOf(disk, false)
		if err != nil || !maps.Equal(found, again) {
			t.Errorf("opened again (%v): %.200q, it was %.200q", err, again, found)
		}
	}
}

// checkExplicit wants an error of Open to say what is wrong with which file.
func checkExplicit(t *testing.T, disk *simdisk.Disk, err error) {
	if err == nil {
		return
	}
	if err := (victim{disk: disk}).explicit(err); err != nil {
		t.Error(err)
	}
}

// contentsOf opens the store, lists it and closes it. A value that can't be
// read counts as its error.
func contentsOf(disk *simdisk.Disk, readOnly bool) (list map[string]string, err error) {
	before := changes(disk)
	store, err := db.Open("", &db.Options{FS: disk, ReadOnly: readOnly, SegmentSize: 4 << 10, BlobSize: 4 << 10})
	if err != nil {
		return nil, err
	}
	list, err = listAll(store)
	err = errors.Join(err, store.Close())
	if readOnly && changes(disk) != before {
		err = errors.Join(err, errors.New("a read-only open changed something"))
	}
	return list, err
}

func listAll(store *db.DB) (map[string]string, error) {
	snap, err := store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	list := make(map[string]string)
	for key, e := range snap.All() {
		if e.Err() != nil {
			return nil, e.Err()
		}
		value, err := store.Get(nil, key)
		var damage *db.CorruptError
		if err != nil && !errors.As(err, &damage) && !errors.Is(err, db.ErrNewer) {
			return nil, err
		}
		if err != nil {
			value = []byte("unreadable")
		}
		if b, err2 := e.Bytes(); (err == nil) != (err2 == nil) || err == nil && string(b) != string(value) {
			return nil, fmt.Errorf("key %q: Get finds %d bytes (%v), the snapshot %d (%v)", key, len(value), err, len(b), err2)
		}
		_, _ = e.Metadata()
		list[string(key)] = string(value)
	}
	if n := store.Stats().Keys; n != len(list) {
		return nil, fmt.Errorf("%d keys are counted and %d listed", n, len(list))
	}
	return list, nil
}

// filesOf are the contents of all files but the lock, which Open may create.
func filesOf(disk *simdisk.Disk) map[string]string {
	list := make(map[string]string)
	for _, name := range disk.Names() {
		if b, err := disk.ReadFile(name); err == nil && name != segment.LockName {
			list[name] = string(b)
		}
	}
	return list
}

// namedSegments are the sealed segments that the newest manifest names, if it
// is whole.
func namedSegments(disk *simdisk.Disk) map[string]bool {
	named := make(map[string]bool)
	b, _ := disk.ReadFile(newestManifest(disk))
	for _, e := range imageEntries(b) {
		if e[8] == sealedState {
			named[segment.ID(binary.LittleEndian.Uint64(e)).FileName()] = true
		}
	}
	return named
}

const (
	imageEntrySize = 65
	sealedState    = 2
)

// imageEntries are the entries of a manifest's first image, in place, as far
// as they can be found. It says in other words what db/manifest.go says.
func imageEntries(b []byte) (list [][]byte) {
	const first = segment.HeaderSize + 8 + 28
	for off := first; off+2+imageEntrySize <= len(b); {
		n := int(binary.LittleEndian.Uint16(b[off:]))
		if n != imageEntrySize {
			break
		}
		list = append(list, b[off+2:][:n])
		off += 2 + n
	}
	return list
}

// repairDirectory makes files of one store out of those in a directory:
// headers that fit name and kind, records with right checksums, and a newest
// manifest that describes the segments there are.
func repairDirectory(disk *simdisk.Disk) {
	store := segment.StoreID{1, 2, 3}
	for _, name := range disk.Names() {
		b, _ := disk.ReadFile(name)
		if len(b) < segment.HeaderSize {
			continue
		}
		if h, ok := properHeader(name, store, b); ok {
			copy(b, segment.AppendHeader(nil, h))
		}
		if strings.HasSuffix(name, ".seg") {
			repairSums(b, binary.LittleEndian.Uint64(b[40:]))
		}
		disk.WriteFile(name, b)
	}
	name := newestManifest(disk)
	b, err := disk.ReadFile(name)
	if err != nil {
		return
	}
	for _, e := range imageEntries(b) {
		describeSegment(disk, store, e)
	}
	repairManifest(b)
	disk.WriteFile(name, b)
}

// properHeader keeps nothing of a header but salt and epoch.
func properHeader(name string, store segment.StoreID, b []byte) (h segment.Header, ok bool) {
	h = segment.Header{
		Store: store, Salt: binary.LittleEndian.Uint64(b[40:]), Epoch: binary.LittleEndian.Uint32(b[48:]),
	}
	if id, ok := segment.ParseFileName(name); ok {
		h.Magic, h.File = segment.MagicSegment, uint64(id)
		return h, true
	}
	if id, ok := segment.ParseBlobName(name); ok {
		h.Magic, h.File = segment.MagicBlob, uint64(id)
		return h, true
	}
	h.Magic = segment.MagicManifest
	h.File, ok = segment.ParseManifestName(name)
	return h, ok
}

// describeSegment puts salt and tally of a segment into its entry, if the
// length there is one up to which it can be read.
func describeSegment(disk *simdisk.Disk, store segment.StoreID, e []byte) {
	le := binary.LittleEndian
	length := int64(le.Uint64(e[9:]))
	boundCapacity(e)
	id := segment.ID(le.Uint64(e))
	seg, err := segment.Open(disk, id, store, segment.WholeFile, 0)
	if err != nil {
		return
	}
	le.PutUint64(e[25:], seg.Salt())
	var tally segment.Tally
	for r, err := range seg.Records(segment.HeaderSize, min(max(length, segment.HeaderSize), seg.Len())) {
		if err != nil {
			break
		}
		tally.Add(&r)
		if e[8] == sealedState && r.End > length-8 {
			le.PutUint64(e[9:], uint64(r.End))
		}
	}
	for i, v := range []uint64{tally.Records, tally.MinSeq, tally.MaxSeq, tally.Sum} {
		le.PutUint64(e[33+8*i:], v)
	}
}

// boundCapacity takes away what is meant to be large: the capacity of an active
// segment costs addresses on a real disk, and memory on this one.
func boundCapacity(e []byte) {
	const most = 64 << 10
	binary.LittleEndian.PutUint64(e[17:], min(binary.LittleEndian.Uint64(e[17:]), most))
}

// killedVictim has one segment that was being written.
func killedVictim(t testing.TB) victim {
	v := victim{disk: simdisk.New(), want: make(map[string]string)}
	store, err := db.Open("", v.options())
	check(t, err)
	for i := range 6 {
		v.write(t, store, 0, i)
	}
	v.disk = v.disk.Clone()
	return v
}

// TestContainer promises that the seeds of FuzzRecovery are stores, also once
// they have been put right.
func TestContainer(t *testing.T) {
	for _, v := range []victim{smallVictim(t), fewFiles(t, 2), killedVictim(t), newVictim(t, false)} {
		if refused, err := (victim{disk: unpack(pack(v.disk)), want: v.want}).judge(); refused || err != nil {
			t.Errorf("refused %v, %v", refused, err)
		}
		disk := unpack(pack(v.disk))
		repairDirectory(disk)
		list, err := contentsOf(disk, false)
		if err != nil || !slices.Equal(slices.Sorted(maps.Keys(list)), slices.Sorted(maps.Keys(v.want))) {
			t.Errorf("put right, it has %d keys of %d: %v", len(list), len(v.want), err)
		}
	}
}
