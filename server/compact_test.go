package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// waste fills a store with values of 16 KiB of which one in two is overwritten,
// and keeps the background from doing anything about it.
func waste(t *testing.T, store *db.DB, values int) {
	t.Helper()
	t.Cleanup(store.PauseCompaction())
	for i := range values {
		put(t, store, strconv.Itoa(i/2), noise(16<<10, byte(i)), nil)
	}
}

// fileBytes is what the segments in a directory take.
func fileBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && filepath.Ext(e.Name()) == ".seg" {
			n += info.Size()
		}
	}
	return n
}

// compactLines are the lines of an answer. All but the last must be progress.
func compactLines(t *testing.T, body []byte) (progress []CompactProgress, last CompactLine) {
	t.Helper()
	for line := range strings.Lines(string(body)) {
		last = CompactLine{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if last.CompactProgress != nil {
			progress = append(progress, *last.CompactProgress)
		}
	}
	if n := strings.Count(string(body), "\n"); last.CompactProgress != nil || n != len(progress)+1 {
		t.Fatalf("lines %s", body)
	}
	return progress, last
}

// A client that asks for it gets the space back on disk, is told how much, and
// the values are all there. Method: the files are measured before and after.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	store := openStoreIn(t, dir, &db.Options{SegmentSize: 128 << 10})
	waste(t, store, 100)
	_, addr := start(t, store, &Options{Log: failOnError(t)})
	c := dial(t, addr)
	before := fileBytes(t, dir)

	got := c.do("POST", "/-/compact", "")

	got.wantStatus(t, 200)
	progress, last := compactLines(t, got.body)
	if len(progress) == 0 || last.Compacted == nil {
		t.Fatalf("lines %s", got.body)
	}
	p := progress[len(progress)-1]
	if p.Done == 0 || p.Done < p.Total || p.Written < 50*16<<10 {
		t.Errorf("progress ends with %+v", p)
	}
	if after := fileBytes(t, dir); after > before*6/10 || after < last.After {
		t.Errorf("%d bytes of files, then %d, and the answer is %+v", before, after, last.Compacted)
	}
	s := last.Compacted
	if s.Before < 100*16<<10 || s.Live < 50*16<<10 || s.After < s.Live || s.After > s.Before*6/10 || s.Read < s.Copied || s.Copied < s.Live*9/10 {
		t.Errorf("%+v", s)
	}
	for i := range 50 {
		c.do("GET", "/"+strconv.Itoa(i), "").wantBody(t, noise(16<<10, byte(2*i+1)))
	}

	_, again := compactLines(t, c.do("POST", "/-/compact", "").body)
	if again.Compacted == nil || again.Copied > s.Copied/10 {
		t.Errorf("the second time %+v", again.Compacted)
	}
}

// gate is a directory in which writing to segments waits while it is shut.
type gate struct {
	vfs.FS
	shut    atomic.Bool
	waiting chan struct{} // has one for everybody who has come to the gate
	pass    chan struct{} // lets one pass, or everybody if it is closed
	full    atomic.Bool   // the disk
}

// open lets everybody pass. It is called once.
func (g *gate) open() {
	g.shut.Store(false)
	close(g.pass)
}

func (g *gate) Create(name string) (vfs.File, error) {
	f, err := g.FS.Create(name)
	if err == nil && strings.HasSuffix(name, ".seg") {
		f = gatedFile{f, g}
	}
	return f, err
}

type gatedFile struct {
	vfs.File
	gate *gate
}

func (f gatedFile) WriteVec(bufs [][]byte, off int64) (int, error) {
	if f.gate.shut.Load() {
		f.gate.waiting <- struct{}{}
		<-f.gate.pass
	}
	if f.gate.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteVec(bufs, off)
}

// underWay is a compaction that a client has asked for and that waits at a gate.
type underWay struct {
	*gate
	store   *db.DB
	server  *Server
	addr    string
	client  *wire
	request context.Context // of the server
	answer  *http.Response  // has begun
	before  int64           // bytes to give back
}

// beginCompact has a client ask for a compaction, which goes on until the answer
// has begun.
func beginCompact(t *testing.T, o *Options) *underWay {
	t.Helper()
	dir, err := vfs.OpenDir(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	u := &underWay{gate: &gate{FS: dir, waiting: make(chan struct{}, 10), pass: make(chan struct{})}}
	u.store = openStoreIn(t, "", &db.Options{FS: u.gate, SegmentSize: 128 << 10})
	u.store.PauseCompaction() // in the background, which would go on where a client has left off
	waste(t, u.store, 300)
	u.before = u.store.Stats().Compaction.Reclaimable
	requests := make(chan context.Context, 10)
	u.server, u.addr = start(t, u.store, o, func(s *Server) {
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests <- r.Context()
			s.handler.ServeHTTP(w, r)
		})
	})
	u.shut.Store(true)
	u.client = dial(t, u.addr)
	u.client.send("POST /-/compact HTTP/1.1\r\nHost: localhost\r\n\r\n")
	begun := make(chan error, 1)
	go func() {
		var err error
		u.answer, err = http.ReadResponse(u.client.in, &http.Request{Method: "POST"})
		begun <- err
	}()
	u.request = <-requests
	for {
		select {
		case <-u.waiting:
			time.Sleep(10 * time.Millisecond) // for the answer to begin before much is done
			u.pass <- struct{}{}
		case err := <-begun:
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
}

// lines are the lines of the answer, to its end.
func (u *underWay) lines(t *testing.T) (progress []CompactProgress, last CompactLine) {
	t.Helper()
	body, err := io.ReadAll(u.answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return compactLines(t, body)
}

// wantCutShort requires that most of the space was not given back.
func (u *underWay) wantCutShort(t *testing.T) {
	t.Helper()
	if after := u.store.Stats().Compaction.Reclaimable; after < u.before/2 {
		t.Errorf("it went on: %d bytes to give back before, %d after", u.before, after)
	}
}

// The answer begins while the compaction goes on. There is one at a time: a
// second client is refused until the first one has its answer, and others read.
func TestCompactOnce(t *testing.T) {
	u := beginCompact(t, nil)
	u.wantCutShort(t)
	second := dial(t, u.addr)
	refused := second.do("POST", "/-/compact", "")
	refused.wantStatus(t, 409)
	checkProblem(t, refused)
	second.do("GET", "/1", "").wantStatus(t, 200)
	u.open()
	if _, last := u.lines(t); last.Compacted == nil {
		t.Errorf("the first one ends with %+v", last)
	}
	second.do("POST", "/-/compact", "").wantStatus(t, 200)
}

// A compaction ends when its client goes away. Method: it waits at the gate
// until the server has noticed.
func TestCompactClientGone(t *testing.T) {
	u := beginCompact(t, &Options{Log: failOnError(t)})
	u.client.Close()
	<-u.request.Done()
	u.open()
	eventually(t, "the end of the compaction", func() bool {
		ended := u.server.handler.compacting.TryLock()
		if ended {
			u.server.handler.compacting.Unlock()
		}
		return ended
	})
	u.wantCutShort(t)
	dial(t, u.addr).do("POST", "/-/compact", "").wantStatus(t, 200)
}

// A server that is shut down ends a compaction, and its client is told.
func TestCompactShutdown(t *testing.T) {
	u := beginCompact(t, &Options{Log: failOnError(t)})
	down := make(chan error, 1)
	go func() { down <- u.server.Shutdown(context.Background()) }()
	<-u.server.handler.alive.Done()
	u.open()
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, last := u.lines(t); last.Error != "the server is shutting down" {
		t.Errorf("it ends with %+v", last)
	}
	u.wantCutShort(t)
}

// What makes a compaction fail after the answer has begun is its last line.
func TestCompactFails(t *testing.T) {
	u := beginCompact(t, &Options{Log: quiet()})
	u.full.Store(true)
	u.open()
	if _, last := u.lines(t); last.Error != "no space left for writing" {
		t.Errorf("it ends with %+v", last)
	}
	u.full.Store(false)
	if _, last := compactLines(t, dial(t, u.addr).do("POST", "/-/compact", "").body); last.Compacted == nil {
		t.Errorf("once there is space again: %+v", last)
	}
}
