package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crowfly/crowfly/db"
)

// Options for a [Handler] or a [Server]. The zero value is a good default.
type Options struct {
	// MaxBody is the largest value that PUT takes, in bytes, up to db.MaxValue,
	// which is the default.
	MaxBody int64

	// Metrics has GET /-/metrics answered, as [Handler.Metrics] does. Whoever
	// may send requests may read it then.
	Metrics bool

	// AccessLog hears of every request that was answered, at level Info, after
	// the answer. Nobody does if it is nil. See the package comment.
	AccessLog *slog.Logger
	// MaxInFlight is how many bytes of memory the bodies that are under way
	// may take together: uploads as far as they are in memory, and listings.
	// Beyond it requests get 503, and may come again. See DefaultMaxInFlight.
	MaxInFlight int64

	// MaxConns is how many connections a Server has open at once, 10,000 by
	// default, and never more than half of the file descriptors that the
	// process may have. Beyond it new ones wait until others have ended.
	MaxConns int

	// MinRate is how fast a body must move, in bytes a second: 4 KiB by default,
	// none if negative. Each piece, of 1 MiB of an upload and 4 MiB of a download,
	// has the time that it takes at this rate, and 30 seconds at least. While more
	// than half of the connections of a Server are taken it is at least 64 KiB.
	MinRate int64

	// Hosts are names by which a Server without tokens may be asked, beside those
	// of this machine: the names of the site that a proxy on this machine passes
	// on. A port does not count.
	Hosts []string

	// AllowOrigins are the sites whose pages in a browser may ask a Server or a
	// Handler and read the answers, such as https://maps.example, or "*" for all.
	// They need Tokens: without them any page could do everything.
	AllowOrigins []string

	// Tokens, if not nil, are what a client must have one of, see
	// [ParseTokens] and [ReadTokens].
	Tokens *Tokens

	// TLS, if not nil, is what a Server encrypts its connections with, see
	// [LoadTLS]. They are net/http's then, with HTTP/1.1 and HTTP/2.
	TLS *tls.Config

	// Log hears of damage and of failures of this machine, never of what a
	// client did wrong. It is slog.Default if it is nil.
	Log *slog.Logger
}

// Check returns what is wrong with the options, by the name of the field: a limit
// below zero, a MaxBody above db.MaxValue, or an AllowOrigins that is no origin or
// has no Tokens beside it. Zero stands for the default.
func (o *Options) Check() error {
	for _, limit := range []struct {
		name       string
		value, max int64
	}{
		{"MaxBody", o.MaxBody, db.MaxValue},
		{"MaxInFlight", o.MaxInFlight, math.MaxInt64},
		{"MaxConns", int64(o.MaxConns), math.MaxInt64},
	} {
		if limit.value < 0 || limit.value > limit.max {
			return fmt.Errorf("server: Options.%s is %d, it must be 0 to %d", limit.name, limit.value, limit.max)
		}
	}
	for _, origin := range o.AllowOrigins {
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("server: Options.AllowOrigins: %w", err)
		}
		if o.Tokens == nil {
			return fmt.Errorf("server: Options.AllowOrigins has %q, but there are no Tokens: any page there could do everything", origin)
		}
	}
	return nil
}

// Handler serves a store over HTTP. It works in any net/http server and is
// safe for concurrent use.
type Handler struct {
	store   *db.DB
	frozen  bool // the store is open for reading only
	maxBody int64
	tokens  atomic.Pointer[Tokens] // nil if everybody may do everything
	hosts   map[string]bool        // as Options.Hosts, in lower case
	origins origins
	log     *slog.Logger
	access  *slog.Logger // or nil
	pace    pace
	now     func() time.Time // of a PUT
	metered bool             // there is /-/metrics
	stats   counters
	sick    atomic.Pointer[string] // why the store was not healthy, as the log has it

	// connections counts those of a Server, and is nil elsewhere.
	connections func() (fast, slow int)

	inFlight budget

	compacting sync.Mutex      // for a client
	alive      context.Context // until the server is shut down
	end        context.CancelFunc
}

var _ http.Handler = (*Handler)(nil)

// NewHandler returns a handler for store, which must stay open as long as the
// handler is in use; requests after that get 503. The options may be nil. It
// panics with what [Options.Check] says of them.
func NewHandler(store *db.DB, o *Options) *Handler {
	h := &Handler{
		store: store, frozen: store.Stats().ReadOnly, maxBody: db.MaxValue,
		log: slog.Default(), pace: defaultPace, now: time.Now,
	}
	h.inFlight.limit = DefaultMaxInFlight()
	h.alive, h.end = context.WithCancel(context.Background())
	if o == nil {
		return h
	}
	if err := o.Check(); err != nil {
		panic(err)
	}
	if o.MaxBody > 0 {
		h.maxBody = o.MaxBody
	}
	h.metered, h.access = o.Metrics, o.AccessLog
	if o.MaxInFlight > 0 {
		h.inFlight.limit = o.MaxInFlight
	}
	if o.MinRate != 0 {
		h.pace.rate = max(o.MinRate, 0)
	}
	if len(o.AllowOrigins) > 0 {
		h.origins = make(origins)
	}
	for _, origin := range o.AllowOrigins {
		h.origins[origin] = origin
	}
	h.hosts = make(map[string]bool)
	for _, host := range o.Hosts {
		h.hosts[strings.ToLower(host)] = true
	}
	h.tokens.Store(o.Tokens)
	if o.Log != nil {
		h.log = o.Log
	}
	return h
}

// Stats returns what the handler has done since it was made.
func (h *Handler) Stats() Stats { return h.stats.load() }

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, began := h.begin(w, r), time.Now()
	defer func() { x.ended(time.Since(began)) }()
	key, kind := splitPath(r.URL)
	bad := x.admit()
	switch {
	case bad != badHost && x.preflight():
	case bad.status != 0:
		x.turnAway(bad)
	case r.Method == http.MethodOptions && r.URL.Path == "*":
		x.otherMethod("GET, HEAD, PUT, DELETE, OPTIONS")
	case kind == badPath:
		x.problem(http.StatusBadRequest, "the request target has no path")
	case kind == reservedPath:
		x.serveOwn()
	case key == "":
		x.serveRoot()
	case len(key) > db.MaxKey:
		x.problem(http.StatusRequestURITooLong, db.ErrKeySize.Error())
	default:
		x.q = requestOf(r, key)
		x.serveKey()
	}
	x.finish()
}

// exchange is one request with its response.
type exchange struct {
	*Handler
	w      http.ResponseWriter
	r      *http.Request
	rc     *http.ResponseController
	q      request // of a key
	unread bool    // there is a body, and its end was not seen
	status int     // 0 until the header is written

	fromAllowed bool // a page of one of the origins asks

	departed departure
}

// ended counts a request.
func (x *exchange) ended(took time.Duration) {
	x.stats.request(x.r.Method, x.status, took)
	if x.access != nil {
		x.noteAccess(took)
	}
}

// begin is what comes before every answer.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{Handler: h, w: w, r: r, rc: http.NewResponseController(w)}
	x.expectBody()

	// A browser must not take an uploaded text for a script.
	w.Header().Set(noSniff, "nosniff")
	x.fromAllowed = h.origins.allow(w.Header(), r.Header["Origin"])
	return x
}

// guard turns a fault in this goroutine into a panic, which net/http survives:
// reading the mapping of a page that the disk can't read would otherwise be the
// end of the process. Writing is not guarded, since it goes on in the goroutine
// of whoever commits. Call it as defer guard()().
func guard() (restore func()) {
	before := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(before) }
}

func (x *exchange) serveKey() {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
		x.get()
	case http.MethodPut:
		x.put()
	case http.MethodDelete:
		x.delete()
	default:
		x.otherMethod("GET, HEAD, PUT, DELETE, OPTIONS")
	}
}

func (x *exchange) serveRoot() {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
		x.list()
	default:
		x.otherMethod("GET, HEAD, OPTIONS")
	}
}

// serveOwn answers below /-/, which belongs to the server.
func (x *exchange) serveOwn() {
	switch path := x.r.URL.EscapedPath(); {
	case path == reserved+"stats":
		x.look(x.describe)
	case path == reserved+"healthz":
		x.look(x.healthy)
	case path == reserved+"readyz":
		x.look(x.ready)
	case path == reserved+"metrics" && x.metered:
		x.look(x.metrics)
	case path == reserved+"compact" && x.r.Method == http.MethodPost:
		x.compact()
	case path == reserved+"compact":
		x.otherMethod("POST, OPTIONS")
	default:
		x.problem(http.StatusNotFound, "nothing here: paths below /-/ are not keys; write /%2D/ for a key that begins so")
	}
}

// look answers what can be looked at only.
func (x *exchange) look(answer func()) {
	if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
		answer()
		return
	}
	x.otherMethod("GET, HEAD, OPTIONS")
}

func (x *exchange) otherMethod(allow string) {
	x.w.Header().Set("Allow", allow)
	if x.r.Method == http.MethodOptions {
		x.writeHeader(http.StatusNoContent)
		return
	}
	if !slices.Contains(knownMethods, x.r.Method) {
		x.problem(http.StatusNotImplemented, "the method is not known; this resource takes "+allow)
		return
	}
	x.problem(http.StatusMethodNotAllowed, "this resource takes "+allow)
}

// knownMethods are those of RFC 9110 and 5789.
var knownMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete,
	http.MethodConnect, http.MethodOptions, http.MethodTrace, http.MethodPatch,
}

// writeHeader sends the status line and the header, with a status the
// statistics will know. The client has the time for a piece to take that, and what
// is made for this response. On a connection of a Server that is not encrypted each
// write has a time of its own.
func (x *exchange) writeHeader(status int) {
	x.skipBody()
	x.status = status
	if x.r.ProtoMajor >= 2 || x.r.TLS != nil || connOf(x.r) == nil {
		_ = x.rc.SetWriteDeadline(x.pace.deadline(0))
	}
	x.w.WriteHeader(status)
}

// finish has another server send what it may have left of the answer, in the time
// there is for that. Who writes behind this Handler has as much from now on, unless he
// sets a deadline of his own.
func (x *exchange) finish() {
	if x.r.ProtoMajor == 1 && connOf(x.r) == nil && x.rc.Flush() == nil {
		_ = x.rc.SetWriteDeadline(x.pace.deadline(0))
	}
}

// pace is the slowest transfer that is not given up. Each piece of a body gets
// the time it takes at this rate, and never less than the grace. A slow client
// does no harm as long as there are connections enough. When they are scarce, one
// that has stopped or drips keeps others out, so then the rate is a higher one.
type pace struct {
	rate   int64 // bytes a second, 0 for none
	grace  time.Duration
	scarce func() bool // whether connections are; nil where that is not known
}

const (
	defaultMinRate = 4 << 10
	scarceMinRate  = 64 << 10
	patientTime    = time.Hour // for a piece, if there is no rate
)

// defaultPace gives a phone in a tunnel time to come out again, and gets rid
// of a client that has stopped reading: it holds a connection and a value.
var defaultPace = pace{rate: defaultMinRate, grace: 30 * time.Second}

// time is how long it may take to move n bytes.
func (p pace) time(n int64) time.Duration {
	rate := p.rate
	if p.scarce != nil && p.scarce() {
		rate = max(rate, scarceMinRate)
	}
	if rate == 0 {
		return patientTime
	}
	return max(p.grace, time.Duration(n)*time.Second/time.Duration(rate))
}

// deadline is when n bytes must have been moved that start moving now.
func (p pace) deadline(n int64) time.Time { return time.Now().Add(p.time(n)) }
