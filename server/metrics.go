package server

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/crowfly/crowfly/db"
)

// Metrics returns a handler that answers GET and HEAD, whatever the path, with
// all figures of a handler, its store and the process in the text format of
// Prometheus. See the package comment.
func (h *Handler) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := h.begin(w, r)
		if !h.isOwnHost(r) {
			x.turnAway(misdirected)
			return
		}
		x.look(x.metrics)
	})
}

// metrics answers with the page.
func (x *exchange) metrics() {
	var e exposition
	x.exposeServer(&e)
	x.exposePaths(&e)
	if u, ok := usageOf(); ok {
		u.expose(&e)
	}
	s := x.store.Stats()
	exposeWrites(&e, s)
	if !s.Closed {
		exposeStore(&e, s)
		exposeReaders(&e, s)
		exposeCompaction(&e, s)
	}
	x.w.Header().Set("Cache-Control", "no-store")
	x.reply(http.StatusOK, expositionType, e.text)
}

// methods are the values of a label, in the order of methodIndex, and classes
// those for requestCounters.
var (
	methods = [...]string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, "other"}
	classes = [...]string{"2xx", "3xx", "4xx", "5xx"}
)

// exposeServer tells of requests and connections.
func (h *Handler) exposeServer(e *exposition) {
	e.family("crowfly_build_info", "gauge", "Version of the program, always 1.")
	e.add(1, label{"version", version()}, label{"go_version", runtime.Version()}, label{"os", runtime.GOOS}, label{"arch", runtime.GOARCH})
	e.gauge("crowfly_ready", "1 if /-/readyz answers 200, else 0.", oneIf(h.unready() == ""))

	e.family("crowfly_requests_total", "counter", "Requests answered, by method and class of the status.")
	for m := range h.stats.requests {
		for c := range h.stats.requests[m] {
			e.add(float64(h.stats.requests[m][c].Load()), label{"method", methods[m]}, label{"class", classes[c]})
		}
	}
	e.family("crowfly_request_duration_seconds", "histogram", "Time from the header of a request to the end of its answer.")
	for m := range h.stats.latency {
		e.histogram(&h.stats.latency[m], label{"method", methods[m]})
	}
	if h.connections != nil {
		fast, slow := h.connections()
		e.family("crowfly_open_connections", "gauge", "Connections, by what serves them now.")
		e.add(float64(fast), label{"path", "fast"})
		e.add(float64(slow), label{"path", "nethttp"})
	}
	e.counter("crowfly_connection_waits_total", "Times that new connections had to wait: as many as may be were open.", float64(h.stats.waited.Load()))
	e.gauge("crowfly_in_flight_bytes", "Memory that uploads and listings under way take.", float64(h.inFlight.used.Load()))
}

// exposePaths tells by which ways bytes left.
func (h *Handler) exposePaths(e *exposition) {
	s := h.Stats()
	e.family("crowfly_sent_bytes_total", "counter", "Bytes of values sent, without headers: written from the mapping, sent from the file, or copied.")
	e.add(float64(s.Mapped), label{"path", "mapped"})
	e.add(float64(s.Sendfile), label{"path", "sendfile"})
	e.add(float64(s.Copied.Total()), label{"path", "copied"})
	e.family("crowfly_copied_bytes_total", "counter", "Bytes of values that had to be copied, by the reason.")
	e.add(float64(s.Copied.HTTP2), label{"reason", "http2"})
	e.add(float64(s.Copied.TLS), label{"reason", "tls"})
	e.add(float64(s.Copied.Wrapped), label{"reason", "wrapped"})
	e.add(float64(s.Copied.Buffered), label{"reason", "buffered"})

	e.counter("crowfly_sendfile_calls_total", "System calls of sendfile.", float64(s.SendfileCalls))
	e.counter("crowfly_sendfile_partial_calls_total", "Calls of sendfile that did not send all they were asked to.", float64(s.SendfilePartial))
	e.counter("crowfly_sendfile_refused_bodies_total", "Bodies that a file or platform without sendfile had to send from the mapping.", float64(s.SendfileRefused))
	e.counter("crowfly_aborted_bodies_total", "Bodies that were not sent to the end.", float64(s.Aborted))
	e.counter("crowfly_fast_requests_total", "Requests answered without net/http.", float64(s.Fast))
	e.counter("crowfly_handed_over_connections_total", "Connections that net/http took over.", float64(s.HandedOver))
}

// usage is what a process has used since it began.
type usage struct {
	user, system             time.Duration // of the processor
	minorFaults, majorFaults int64         // pages found in memory, and read from disk
	voluntary, involuntary   int64         // context switches
}

func (u *usage) expose(e *exposition) {
	e.family("crowfly_process_cpu_seconds_total", "counter", "Processor time of the process.")
	e.add(u.user.Seconds(), label{"mode", "user"})
	e.add(u.system.Seconds(), label{"mode", "system"})
	e.family("crowfly_process_page_faults_total", "counter", "Page faults of the process; major ones had to read from disk.")
	e.add(float64(u.minorFaults), label{"kind", "minor"})
	e.add(float64(u.majorFaults), label{"kind", "major"})
	e.family("crowfly_process_context_switches_total", "counter", "Context switches of the process.")
	e.add(float64(u.voluntary), label{"kind", "voluntary"})
	e.add(float64(u.involuntary), label{"kind", "involuntary"})
}

// exposeWrites tells of what is known of a closed store as well.
func exposeWrites(e *exposition, s db.Stats) {
	e.counter("crowfly_store_commits_total", "Acknowledged writes.", float64(s.Commits))
	e.counter("crowfly_store_records_total", "Puts and deletes in them.", float64(s.Records))
	e.counter("crowfly_store_syncs_total", "Datasyncs they took.", float64(s.Syncs))
}

// exposeStore tells what there is, as StoreStats does.
func exposeStore(e *exposition, s db.Stats) {
	d := NewStoreStats(s)
	e.gauge("crowfly_store_keys", "Keys.", float64(d.Keys))
	e.gauge("crowfly_store_live_bytes", "Present values with their records.", float64(d.Live))
	e.gauge("crowfly_store_dead_bytes", "Overwritten and deleted ones, and tombstones.", float64(d.Dead))
	e.gauge("crowfly_store_file_bytes", "All segments and blobs.", float64(d.Total))
	e.gauge("crowfly_store_reclaimable_bytes", "About what a compaction would give back now.", float64(d.Reclaimable))
	e.gauge("crowfly_store_stuck_tombstone_bytes", "Tombstones that have to stay.", float64(d.Stuck))
	e.gauge("crowfly_store_segments", "Segments.", float64(len(d.Segments)))
	e.gauge("crowfly_store_blobs", "Values in files of their own.", float64(d.Blobs))
	e.gauge("crowfly_store_blob_bytes", "What these take.", float64(d.BlobBytes))
	e.gauge("crowfly_store_hints", "Segments that have a hint.", float64(d.Hints))
	e.gauge("crowfly_store_missing_hints", "Segments that should have one.", float64(d.HintsMissing))
	e.gauge("crowfly_store_index_bytes", "Memory of the index, without the order of listings.", float64(s.IndexBytes))
}

// exposeReaders tells what readers hold.
func exposeReaders(e *exposition, s db.Stats) {
	p := newProcessStats(s)
	e.family("crowfly_store_open_handles", "gauge", "Open handles.")
	e.add(float64(p.Values), label{"kind", "value"})
	e.add(float64(p.Snapshots), label{"kind", "snapshot"})
	e.gauge("crowfly_store_leaked_handles", "Of them, dropped without Close.", float64(p.Leaked))
	oldest := 0.0
	if p.Oldest != nil {
		oldest = p.Oldest.Age
	}
	e.gauge("crowfly_store_oldest_handle_seconds", "Age of the oldest open handle, 0 if there is none.", oldest)

	e.gauge("crowfly_store_retired_segments", "Segments that were removed and may still be read.", float64(p.Retired))
	e.gauge("crowfly_store_retired_bytes", "What they take on disk, with their blobs.", float64(p.RetiredBytes))
	e.gauge("crowfly_store_moved_bytes", "What of them was moved to memory.", float64(p.MovedBytes))
	e.counter("crowfly_store_revoked_snapshots_total", "Snapshots that had to expire.", float64(p.Revoked))
	e.counter("crowfly_store_forced_collections_total", "Garbage collections forced to find unread segments.", float64(s.Pinned.Collections))

	e.family("crowfly_process_mappings", "gauge", "Mappings of the process, and address ranges held back.")
	e.add(float64(p.Maps), label{"state", "live"})
	e.add(float64(p.MapsRetired), label{"state", "retired"})
	e.gauge("crowfly_process_mappings_limit", "How many of both there may be together.", float64(p.MapsLimit))
}

// exposeCompaction tells what compaction does, in a store that is written to.
func exposeCompaction(e *exposition, s db.Stats) {
	if s.ReadOnly {
		return
	}
	c := s.Compaction
	e.counter("crowfly_compactions_total", "Compactions.", float64(c.Compactions))
	e.counter("crowfly_compaction_segments_total", "Segments they replaced.", float64(c.Segments))
	e.counter("crowfly_compaction_read_bytes_total", "What they read of these.", float64(c.BytesRead))
	e.counter("crowfly_compaction_written_bytes_total", "What they copied.", float64(c.BytesWritten))
	e.counter("crowfly_compaction_freed_bytes_total", "What they gave back.", float64(c.BytesFreed))
	e.gauge("crowfly_compaction_backlog_bytes", "What is beyond the space target.", float64(c.Backlog))
	e.gauge("crowfly_compaction_suspect_segments", "Damaged segments, which stay as they are.", float64(len(c.Suspect)))
}

// version is the version of this module that the program was built with.
func version() string {
	const module = "github.com/crowfly/crowfly"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return info.Main.Version
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
