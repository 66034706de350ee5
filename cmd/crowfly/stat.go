package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/crowfly/crowfly/db"
)

type statCmd struct {
	Dir  string  `arg:"" help:"Store directory."`
	Key  *keyArg `arg:"" optional:"" help:"Describe the value of this key instead of the store."`
	JSON bool    `name:"json" help:"Print JSON."`
}

// jsonStore describes a store.
type jsonStore struct {
	Keys       int           `json:"keys"`
	LiveBytes  int64         `json:"live_bytes"`
	DeadBytes  int64         `json:"dead_bytes"`
	TotalBytes int64         `json:"total_bytes"`
	Blobs      int           `json:"blobs"`
	BlobBytes  int64         `json:"blob_bytes"`
	Sequence   uint64        `json:"sequence"`
	Generation uint64        `json:"generation"`
	Segments   []jsonSegment `json:"segments"`
}

type jsonSegment struct {
	File      string `json:"file"`
	Active    bool   `json:"active"`
	Length    int64  `json:"length"`
	LiveBytes int64  `json:"live_bytes"`
	LiveKeys  int    `json:"live_keys"`
}

// jsonPlace describes a value and where it lies.
type jsonPlace struct {
	jsonValue
	Checksum string `json:"checksum"`
	File     string `json:"file"`
	Offset   int64  `json:"offset"`
}

func (c *statCmd) Run(e *env) (err error) {
	store, err := openReader(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	if c.Key == nil {
		return c.store(e, store.Stats())
	}
	v, err := store.Value([]byte(*c.Key))
	if err != nil {
		return err
	}
	defer closeAfter(v, &err)
	return c.value(e, v)
}

func (c *statCmd) value(e *env, v *db.Value) error {
	x := v.Extents()[0]
	meta, err := v.Metadata()
	if err != nil {
		return err
	}
	p := jsonPlace{
		jsonValue: newJSONValue(string(*c.Key), v.Size(), v.Version(), &meta),
		Checksum:  fmt.Sprintf("%016x", v.Version().Sum),
		File:      filepath.Join(c.Dir, x.File.Name()),
		Offset:    x.Offset,
	}
	if c.JSON {
		return e.json(p)
	}
	return e.table([]row{
		{"key", e.shown(string(*c.Key))},
		{"size", fmt.Sprintf("%d (%s)", p.Size, formatBytes(p.Size))},
		{"version", p.Version},
		{"checksum", p.Checksum},
		{"content type", cmp.Or(p.ContentType, "-")},
		{"modified", formatTime(p.Modified)},
		{"file", p.File},
		{"offset", p.Offset},
	})
}

func (c *statCmd) store(e *env, s db.Stats) error {
	if c.JSON {
		return e.json(newJSONStore(s))
	}
	err := e.table([]row{
		{"keys", s.Keys},
		{"live", formatBytes(s.LiveBytes)},
		{"dead", formatBytes(s.DeadBytes)},
		{"blobs", fmt.Sprintf("%d (%s)", s.Blobs, formatBytes(s.BlobBytes))},
		{"total", formatBytes(totalBytes(s))},
		{"sequence", s.Sequence},
		{"generation", s.Generation},
		{"segments", len(s.Segments)},
	})
	if err != nil || len(s.Segments) == 0 {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFILE\tLENGTH\tLIVE\tKEYS\tSTATE")
	for _, seg := range s.Segments {
		state := "sealed"
		if seg.Active {
			state = "active"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", filepath.Base(seg.Path),
			formatBytes(seg.Length), formatBytes(seg.LiveBytes), seg.LiveKeys, state)
	}
	return w.Flush()
}

// totalBytes is what all segments and blobs hold together.
func totalBytes(s db.Stats) int64 {
	n := s.BlobBytes
	for _, seg := range s.Segments {
		n += seg.Length
	}
	return n
}

func newJSONStore(s db.Stats) jsonStore {
	j := jsonStore{
		Keys:       s.Keys,
		LiveBytes:  s.LiveBytes,
		DeadBytes:  s.DeadBytes,
		TotalBytes: totalBytes(s),
		Blobs:      s.Blobs,
		BlobBytes:  s.BlobBytes,
		Sequence:   s.Sequence,
		Generation: s.Generation,
		Segments:   []jsonSegment{},
	}
	for _, seg := range s.Segments {
		j.Segments = append(j.Segments, jsonSegment{
			File:      filepath.Base(seg.Path),
			Active:    seg.Active,
			Length:    seg.Length,
			LiveBytes: seg.LiveBytes,
			LiveKeys:  seg.LiveKeys,
		})
	}
	return j
}
