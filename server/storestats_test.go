package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// askStats asks a server for the figures of its store.
func askStats(t *testing.T, c *wire) StoreStats {
	t.Helper()
	got := c.do("GET", "/-/stats", "")
	got.wantStatus(t, 200)
	var s StoreStats
	dec := json.NewDecoder(bytes.NewReader(got.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// The figures are those of the store, add up, and tell of who reads what has
// been removed.
func TestStoreStats(t *testing.T) {
	store := openStoreIn(t, t.TempDir(), &db.Options{SegmentSize: 128 << 10, BlobSize: 64 << 10})
	waste(t, store, 100)
	for i := range 3 {
		put(t, store, "large", noise(100<<10, byte(i)), nil)
	}
	put(t, store, "odd \xff", []byte("v"), nil)
	_, addr := start(t, store, nil)
	c := dial(t, addr)

	s := askStats(t, c)
	if s.Keys != 52 || s.Blobs != 3 || s.BlobBytes < 300<<10 || s.Sequence != 104 || s.Generation == 0 || len(s.Segments) < 10 {
		t.Errorf("%+v", s)
	}
	if s.Live < 900<<10 || s.Live > 1000<<10 || s.Dead < 1000<<10 || s.Dead > 1100<<10 || s.Total < s.Live+s.Dead || s.Reclaimable < s.Dead*9/10 {
		t.Errorf("%d live, %d dead, %d reclaimable, of %d", s.Live, s.Dead, s.Reclaimable, s.Total)
	}
	if k := s.Compaction; k == nil || k.SpaceTarget != 1.3 || k.Rate != 64<<20 || k.Backlog < s.Dead/2 || k.Suspects == nil || k.Read+k.Copied+k.Freed > 0 {
		t.Errorf("compaction %+v", k)
	}
	if p := s.Process; p == nil || p.Values+p.Snapshots+p.Leaked > 0 || p.Oldest != nil || p.RetiredBytes > 0 || p.Maps < len(s.Segments) || p.MapsLimit < p.Maps {
		t.Errorf("process %+v", p)
	}

	v, err := store.Value([]byte("odd \xff"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	c.do("POST", "/-/compact", "").wantStatus(t, 200)

	held := askStats(t, c)
	p := held.Process
	if p.Values != 1 || p.Snapshots != 1 || p.Retired < 5 || p.RetiredBytes < s.Dead*9/10 || p.MovedBytes != 0 {
		t.Errorf("process %+v", p)
	}
	if h := p.Oldest; h == nil || h.Kind != "value" || h.Key != "" || string(h.Base64) != "odd \xff" ||
		!strings.Contains(h.Owner, "TestStoreStats") || !strings.Contains(h.Owner, "storestats_test.go:") || h.Age <= 0 {
		t.Errorf("oldest handle %+v", h)
	}
	if k := held.Compaction; k.Compactions == 0 || k.Segments < 5 || k.Read < k.Copied || k.Copied < 700<<10 || k.Freed < s.Dead*9/10 || k.Backlog != 0 {
		t.Errorf("compaction %+v", k)
	}
	if held.Reclaimable > held.Live/20 || held.Live > s.Live+s.Live/20 || held.Live < s.Live-s.Live/20 {
		t.Errorf("%d live, %d reclaimable", held.Live, held.Reclaimable)
	}
}

// What is damaged is named, and a server that only reads has no compaction to
// tell of.
func TestStatsSuspects(t *testing.T) {
	dir := t.TempDir()
	store, err := db.Open(dir, &db.Options{Sync: db.SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	value := noise(4000, 1)
	put(t, store, "k", value, nil)
	put(t, store, "other", noise(4000, 2), nil)
	put(t, store, "other", noise(4000, 3), nil)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, dir, value)

	reader := openStoreIn(t, dir, &db.Options{ReadOnly: true})
	_, addr := start(t, reader, nil)
	if s := askStats(t, dial(t, addr)); s.Compaction != nil || s.Keys != 2 || s.Process == nil || s.Reclaimable < 4000 {
		t.Errorf("read-only: %+v", s)
	}

	_, addr = start(t, openStoreIn(t, dir, &db.Options{}), &Options{Log: quiet()})
	c := dial(t, addr)
	got := c.do("POST", "/-/compact", "")
	if _, last := compactLines(t, got.body); last.Error != "the stored value is damaged" {
		t.Errorf("%s", got.body)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	s := askStats(t, c)
	if want := filepath.Base(names[0]); fmt.Sprint(s.Compaction.Suspects) != "["+want+"]" || s.Reclaimable != 0 {
		t.Errorf("suspects %q, %d reclaimable, want %s and nothing", s.Compaction.Suspects, s.Reclaimable, want)
	}
	if _, err := os.Stat(names[0]); err != nil {
		t.Error(err)
	}
}
