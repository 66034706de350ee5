package cli

import (
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/crowfly/crowfly/db"
)

type headCmd struct {
	Dir  string `arg:"" help:"Store directory."`
	Key  keyArg `arg:"" help:"Key whose value to describe."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help implements kong.HelpProvider.
func (headCmd) Help() string {
	return `Examples:

  crowfly head data photos/1.jpg
  crowfly head data photos/1.jpg --json`
}

// jsonHead describes a value and where it lies.
type jsonHead struct {
	jsonValue
	Extents []jsonExtent `json:"extents"`
}

// jsonExtent is a part of a file.
type jsonExtent struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
}

func (c *headCmd) Run(e *env) (err error) {
	store, err := openReader(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	v, err := store.Value([]byte(c.Key))
	if err != nil {
		return err
	}
	defer closeAfter(v, &err)

	meta, err := v.Metadata()
	if err != nil {
		return err
	}
	h := jsonHead{jsonValue: newJSONValue(string(c.Key), v.Size(), v.Version(), &meta)}
	for _, x := range v.Extents() {
		h.Extents = append(h.Extents, jsonExtent{filepath.Join(c.Dir, x.File.Name()), x.Offset, x.Length})
	}
	if c.JSON {
		return e.json(h)
	}
	return c.print(e, &h, &meta)
}

// print writes the header of the answer to an HTTP request for the value, and
// below it what no client is told.
func (c *headCmd) print(e *env, h *jsonHead, meta *db.Metadata) error {
	fmt.Fprintf(e.out, "Content-Length: %d\n", h.Size)
	fmt.Fprintf(e.out, "ETag: %q\n", h.Version)
	for _, line := range []db.Pair{
		{Name: "Content-Type", Value: meta.ContentType},
		{Name: "Content-Encoding", Value: meta.ContentEncoding},
		{Name: "Content-Disposition", Value: meta.ContentDisposition},
		{Name: "Cache-Control", Value: meta.CacheControl},
	} {
		if line.Value != "" {
			fmt.Fprintf(e.out, "%s: %s\n", line.Name, e.shown(line.Value))
		}
	}
	if !meta.ModTime.IsZero() {
		fmt.Fprintf(e.out, "Last-Modified: %s\n", meta.ModTime.UTC().Format(http.TimeFormat))
	}
	for _, p := range meta.User {
		fmt.Fprintf(e.out, "X-Meta-%s: %s\n", e.shown(p.Name), e.shown(p.Value))
	}
	for _, p := range h.Checksums {
		fmt.Fprintf(e.out, "Checksum: %s %s\n", e.shown(p.Name), p.Value)
	}
	for _, x := range h.Extents {
		fmt.Fprintf(e.out, "Extent: %s %d+%d\n", x.File, x.Offset, x.Length)
	}
	return nil
}
