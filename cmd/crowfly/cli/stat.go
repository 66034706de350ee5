package cli

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

type statCmd struct {
	Store string  `arg:"" help:"Store directory, or the address of a server, which knows more: http://${listen}."`
	Key   *keyArg `arg:"" optional:"" help:"Describe the value of this key, in a directory, instead of the store."`
	JSON  bool    `name:"json" help:"Print JSON."`
}

// Help implements kong.HelpProvider.
func (statCmd) Help() string {
	return `Examples:

  crowfly stat data                         a store
  crowfly stat http://127.0.0.1:7070        one that a server has open
  crowfly stat data photos/1.jpg            a value`
}

// jsonPlace describes a value and where it lies.
type jsonPlace struct {
	jsonValue
	Checksum string `json:"checksum"`
	File     string `json:"file"`
	Offset   int64  `json:"offset"`
}

func (c *statCmd) Run(e *env) (err error) {
	if isAddress(c.Store) {
		return c.server(e)
	}
	store, err := openReader(c.Store)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	if c.Key == nil {
		s := server.NewStoreStats(store.Stats())
		s.Process = nil // this one, which has nothing open
		return c.store(e, s)
	}
	v, err := store.Value([]byte(*c.Key))
	if err != nil {
		return err
	}
	defer closeAfter(v, &err)
	return c.value(e, v)
}

func (c *statCmd) server(e *env) error {
	if c.Key != nil {
		return usageError{errors.New("a value can be described in a directory only; try curl -I")}
	}
	ctx, stop := interruptible()
	defer stop()
	s, err := askStats(ctx, c.Store)
	if err != nil {
		return err
	}
	return c.store(e, s)
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
		File:      filepath.Join(c.Store, x.File.Name()),
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

// store prints what there is to say about a store. What the process that has it
// open knows can be told by a server only.
func (c *statCmd) store(e *env, s server.StoreStats) error {
	if c.JSON {
		return e.json(s)
	}
	rows := slices.Concat(storeRows(s), compactionRows(s.Compaction), processRows(e, s.Process))
	if err := e.table(rows); err != nil || len(s.Segments) == 0 {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFILE\tLENGTH\tLIVE\tKEYS\tSTATE")
	for _, seg := range s.Segments {
		state := "sealed"
		if seg.Active {
			state = "active"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", seg.File, formatBytes(seg.Length), formatBytes(seg.Live), seg.LiveKeys, state)
	}
	return w.Flush()
}

func storeRows(s server.StoreStats) []row {
	rows := []row{
		{"keys", s.Keys},
		{"live", formatBytes(s.Live)},
		{"dead", formatBytes(s.Dead)},
		{"blobs", fmt.Sprintf("%d (%s)", s.Blobs, formatBytes(s.BlobBytes))},
		{"total", formatBytes(s.Total)},
		{"reclaimable", formatBytes(s.Reclaimable) + ", about what compact gives back now"},
	}
	if s.Stuck > 0 {
		rows = append(rows, row{"tombstones", formatBytes(s.Stuck) + " have to stay: older segments still hold older records"})
	}
	return append(rows,
		row{"hints", fmt.Sprintf("%d, %d missing", s.Hints, s.HintsMissing)},
		row{"sequence", s.Sequence},
		row{"generation", s.Generation},
		row{"segments", len(s.Segments)},
	)
}

func compactionRows(c *server.CompactionStats) []row {
	if c == nil {
		return nil
	}
	rate := "without limit"
	if c.Rate >= 0 {
		rate = formatBytes(c.Rate) + " a second"
	}
	rows := []row{
		{"space target", fmt.Sprintf("%.2f times what is live, %s beyond it", c.SpaceTarget, formatBytes(c.Backlog))},
		{"rate", rate},
		{"compacted", fmt.Sprintf("%s: %s read, %s copied, %s freed",
			count(c.Segments, "segment"), formatBytes(c.Read), formatBytes(c.Copied), formatBytes(c.Freed))},
	}
	for _, file := range c.Suspects {
		rows = append(rows, row{"suspect", file + ": damaged, so it stays as it is; see crowfly verify"})
	}
	return rows
}

func processRows(e *env, p *server.ProcessStats) []row {
	if p == nil {
		return nil
	}
	rows := []row{
		{"handles", fmt.Sprintf("%s, %s; %d dropped without Close", count(p.Values, "value"), count(p.Snapshots, "snapshot"), p.Leaked)},
	}
	if h := p.Oldest; h != nil {
		what := h.Kind
		if key := cmp.Or(h.Key, string(h.Base64)); key != "" {
			what += " " + e.shown(key)
		}
		age := time.Duration(h.Age * float64(time.Second)).Round(time.Millisecond)
		rows = append(rows, row{"oldest", fmt.Sprintf("%s, made %v ago by %s", what, age, h.Owner)})
	}
	return append(rows,
		row{"retired", fmt.Sprintf("%s on disk, in %s that may still be read after removal", formatBytes(p.RetiredBytes), count(p.Retired, "segment"))},
		row{"moved", formatBytes(p.MovedBytes) + " of removed segments is in memory instead"},
		row{"maps", fmt.Sprintf("%d, and %d held back, of %d", p.Maps, p.MapsRetired, p.MapsLimit)},
	)
}
