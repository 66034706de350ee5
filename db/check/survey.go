package check

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// survey is what the names, headers and manifests in a directory tell about
// the store in it, however damaged.
type survey struct {
	names  []string
	store  segment.StoreID
	base   *manifest.List // the newest that can be read; without any, one that lists nothing
	top    uint64         // highest generation among the names
	epoch  uint32         // highest of all headers
	damage []Damage

	// lost says that there was a newer manifest than base. Then segments that
	// base does not name count too.
	lost bool

	headers  map[segment.ID]segment.Header // of segment files, where whole
	findings []*finding                    // of the segments that count
	strays   []*finding                    // of the others of this store
}

// errNoStore says that a directory has no files of a store.
var errNoStore = errors.New("there is no store")

// survey reads manifests and headers. It fails with segment.ErrNewer if any of them is
// from a newer version.
func (in *inspector) survey() (*survey, error) {
	s := &survey{headers: make(map[segment.ID]segment.Header)}
	var err error
	if s.names, err = in.fs.List(); err != nil {
		return nil, err
	}
	if err := in.measure(s.names); err != nil {
		return nil, err
	}
	if err := in.readHeaders(s); err != nil {
		return nil, err
	}
	manifests, err := in.readManifests(s)
	if err != nil {
		return nil, err
	}
	s.choose(manifests)
	in.judgeManifests(s, manifests)
	return s, nil
}

// measure adds up what there is to read. It refuses a directory without files
// of a store.
func (in *inspector) measure(names []string) error {
	in.at.Total = in.at.Done
	ours := false
	for _, name := range names {
		_, isManifest := segment.ParseManifestName(name)
		_, isFile := segment.ParseID(name)
		if !isManifest && !isFile {
			ours = ours || name == segment.LockName
			continue
		}
		ours = true
		file, err := in.fs.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		size, err := file.Size()
		file.Close()
		if err != nil {
			return err
		}
		in.at.Total += size
	}
	if !ours {
		return fmt.Errorf("%w in %s", errNoStore, in.fs.Path())
	}
	return nil
}

// readHeaders reads those of all segments. One that is damaged is left to
// whoever looks at the whole file.
func (in *inspector) readHeaders(s *survey) error {
	for _, id := range segment.Files(s.names) {
		h, err := segment.ReadHeader(in.fs, id)
		if errors.Is(err, segment.ErrNewer) {
			return fmt.Errorf("%s: %w", in.path(id.FileName()), err)
		}
		if err == nil {
			s.headers[id] = h
		}
	}
	return nil
}

// image is a manifest file as it was found.
type image struct {
	gen    uint64
	m      *manifest.List // nil if it can't be read
	damage []Damage
}

func (in *inspector) readManifests(s *survey) (list []image, err error) {
	for _, name := range s.names {
		gen, ok := segment.ParseManifestName(name)
		if !ok {
			continue
		}
		s.top = max(s.top, gen)
		b, err := vfs.ReadFile(in.fs, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced meanwhile
		}
		in.files++
		x := image{gen: gen}
		if err != nil {
			x.damage = []Damage{{Err: &segment.CorruptError{Path: in.path(name), Reason: fmt.Sprint("can't be read: ", err)}}}
		} else if err := x.decode(b, in.path(name)); err != nil {
			return nil, err
		}
		if err := in.passed(name, int64(len(b))); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, nil
}

// decode reads both images and notes what is wrong with either.
func (x *image) decode(b []byte, path string) error {
	half := len(b) / 2
	for _, from := range []int{0, half} {
		m, err := manifest.DecodeImage(b[from:], x.gen)
		switch {
		case errors.Is(err, segment.ErrNewer):
			return fmt.Errorf("%s: %w", path, err)
		case err != nil:
			x.damage = append(x.damage, Damage{Err: &segment.CorruptError{Path: path, Offset: int64(from), Reason: err.Error()}})
		case x.m == nil:
			x.m = m
		}
		if err != nil {
			continue
		}
		if pad := manifest.Padding(b[from : from+half]); bytes.Count(pad, []byte{0}) < len(pad) {
			at := int64(from + half - len(pad))
			x.damage = append(x.damage, Damage{Err: &segment.CorruptError{Path: path, Offset: at, Reason: "padding is not zero"}})
		}
	}
	return nil
}

// choose decides whose files these are and which manifest to go by.
func (s *survey) choose(manifests []image) {
	s.store = s.owner(manifests)
	s.base = &manifest.List{Store: s.store, NextID: 1, NextSeq: 1}
	for _, x := range manifests {
		if x.m != nil && x.m.Store == s.store {
			s.base = x.m
		}
	}
	for _, h := range s.headers {
		if h.Store == s.store {
			s.epoch = max(s.epoch, h.Epoch)
		}
	}
	s.epoch = max(s.epoch, s.base.Epoch)
}

// owner is the store of the newest manifest if most of the segments that one
// names are there, as Open would have it, or else the one that has most of the
// segments.
func (s *survey) owner(manifests []image) (store segment.StoreID) {
	count := make(map[segment.StoreID]int)
	for _, h := range s.headers {
		count[h.Store]++
	}
	for _, x := range manifests {
		if x.m == nil {
			continue
		}
		if len(s.headers) == 0 {
			store = x.m.Store // manifests come in order of age
		}
		present := s.present(x.m)
		if x.gen == s.top && 2*present > len(x.m.Segments) {
			return x.m.Store
		}
		count[x.m.Store] += present
	}
	for other, n := range count {
		if most := count[store]; n > most || n == most && n > 0 && other.String() < store.String() {
			store = other
		}
	}
	return store
}

// present counts the segments of a manifest that are there.
func (s *survey) present(m *manifest.List) (n int) {
	for _, e := range m.Segments {
		if h, ok := s.headers[e.ID]; ok && h.Salt == e.Salt {
			n++
		}
	}
	return n
}

// judgeManifests notes what is wrong with the newest manifest.
func (in *inspector) judgeManifests(s *survey, manifests []image) {
	s.lost = s.base.Generation == 0 || s.base.Generation != s.top
	if s.top == 0 {
		if in.anyFile(s) {
			s.damage = append(s.damage, Damage{Err: &segment.CorruptError{Path: in.fs.Path(), Reason: "there are segments but no manifest"}})
		}
		return
	}
	if !slices.ContainsFunc(manifests, func(x image) bool { return x.gen == s.top }) {
		// Replaced by a newer one since the names were listed, or removed.
		s.damage = append(s.damage, Damage{Err: &segment.CorruptError{Path: in.path(segment.ManifestName(s.top)), Reason: "manifest has gone"}})
	}
	for _, x := range manifests {
		if x.gen != s.top {
			continue
		}
		s.damage = append(s.damage, x.damage...)
		if x.m != nil && x.m.Store != s.store {
			path := in.path(segment.ManifestName(x.gen))
			s.damage = append(s.damage, Damage{Err: &segment.CorruptError{Path: path, Offset: 16, Reason: fmt.Sprintf("file of another store (%v)", x.m.Store)}})
		}
	}
}

func (in *inspector) anyFile(s *survey) bool {
	for _, name := range s.names {
		if _, ok := segment.ParseID(name); ok {
			return true
		}
	}
	return false
}

// inspect looks at all segments. alive says that there is a writer, to whom the
// files belong that the manifest does not name.
func (in *inspector) inspect(s *survey, alive bool, skip func(segment.ID) bool) error {
	for i := range s.base.Segments {
		e := &s.base.Segments[i]
		if skip(e.ID) {
			continue
		}
		f := &finding{id: e.ID, name: s.locate(e), entry: e}
		if err := in.segment(f, s.store); err != nil {
			return err
		}
		s.findings = append(s.findings, f)
	}
	if alive {
		return nil
	}
	for _, id := range segment.Files(s.names) {
		if s.base.Entry(id) != nil {
			continue
		}
		if err := in.stray(s, id); err != nil {
			return err
		}
	}
	return nil
}

// locate returns the name of the file of an entry: that of the segment, unless
// it has come to lie under another one.
func (s *survey) locate(e *manifest.Entry) string {
	if h, ok := s.headers[e.ID]; !ok || h.Salt != e.Salt {
		for _, id := range segment.Files(s.names) {
			if h := s.headers[id]; h.Store == s.store && h.Salt == e.Salt && segment.ID(h.File) == e.ID {
				return id.FileName()
			}
		}
	}
	return e.ID.FileName()
}

// stray looks at a segment that the manifest does not name. A record of its own
// with a number the manifest has not given out yet was acknowledged by a run
// whose manifest is gone.
func (in *inspector) stray(s *survey, id segment.ID) error {
	h, whole := s.headers[id]
	f := &finding{id: id, name: id.FileName()}
	if whole && h.Store == s.store && segment.ID(h.File) != id {
		if !s.lost || s.known(h) {
			return nil // what the disk held there before, or the file of another segment
		}
		f.id = segment.ID(h.File)
	}
	if err := in.segment(f, s.store); err != nil {
		return err
	}
	switch {
	case f.missing:
	case f.foreign && whole:
		s.damage = append(s.damage, f.damage...)
	case f.foreign:
		if s.lost {
			s.damage = append(s.damage, f.damage...)
		}
	case s.lost:
		s.findings = append(s.findings, f)
	default:
		s.strays = append(s.strays, f)
		if whole && f.newest >= s.base.NextSeq {
			s.rediscover(in, f)
		}
	}
	return nil
}

// known reports whether a segment lies under its own name, or was found under
// another one.
func (s *survey) known(h segment.Header) bool {
	id := segment.ID(h.File)
	own, ok := s.headers[id]
	return ok && own.Salt == h.Salt || s.base.Entry(id) != nil ||
		slices.ContainsFunc(s.findings, func(f *finding) bool { return f.id == id && f.salt == h.Salt })
}

// rediscover makes all strays count, since one proves that a manifest was lost.
func (s *survey) rediscover(in *inspector, f *finding) {
	s.lost = true
	s.damage = append(s.damage, Damage{Err: &segment.CorruptError{
		Path: in.path(f.name), Offset: segment.HeaderSize,
		Reason: fmt.Sprintf("record %d is newer than %s, which does not name this file: a manifest was lost",
			f.newest, segment.ManifestName(s.base.Generation)),
	}})
	s.findings, s.strays = append(s.findings, s.strays...), nil
}
