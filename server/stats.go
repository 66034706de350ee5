package server

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Stats are totals since the handler was made. Sizes are bytes of values,
// without headers.
type Stats struct {
	Get, Head, Put, Delete, Other Requests

	Mapped   uint64 // written to the socket from the mapping
	Sendfile uint64 // sent from the file by the kernel
	Copied   Copied // handed to a writer that may copy

	SendfileCalls   uint64 // system calls
	SendfilePartial uint64 // of those, the ones that did not send all that was asked
	SendfileRefused uint64 // bodies that a file or platform without sendfile had to send as Mapped

	Aborted uint64 // bodies that were not sent to the end

	Fast       uint64 // requests answered without net/http
	HandedOver uint64 // connections that net/http took over with their first other request
	Waited     uint64 // times that new connections had to wait until there were less than Options.MaxConns
}

// Requests counts by the class of the status.
type Requests struct {
	Success, Redirect, ClientError, ServerError uint64 // 2xx, 3xx, 4xx, 5xx
}

// Copied are bytes that did not leave by a path without a copy, by the reason.
type Copied struct {
	HTTP2    uint64 // frames are made in user space
	TLS      uint64 // as is encryption
	Wrapped  uint64 // a ResponseWriter or connection that hides the socket
	Buffered uint64 // small enough for one write with the header, in a foreign server
}

// Total is the sum over all reasons.
func (c Copied) Total() uint64 { return c.HTTP2 + c.TLS + c.Wrapped + c.Buffered }

// copyReason is a field of Copied.
type copyReason int

const (
	byWrapped copyReason = iota
	byHTTP2
	byTLS
	byBuffer
	copyReasons
)

// counters are Stats being counted.
type counters struct {
	requests [5]requestCounters // see methodIndex
	latency  [5]histogram       // the same
	mapped   atomic.Uint64
	sendfile atomic.Uint64
	copied   [copyReasons]atomic.Uint64
	calls    atomic.Uint64
	partial  atomic.Uint64
	refused  atomic.Uint64
	aborted  atomic.Uint64

	fast       atomic.Uint64
	handedOver atomic.Uint64
	waited     atomic.Uint64
}

// requestCounters are indexed by the class of the status less 2.
type requestCounters [4]atomic.Uint64

func methodIndex(method string) int {
	switch method {
	case http.MethodGet:
		return 0
	case http.MethodHead:
		return 1
	case http.MethodPut:
		return 2
	case http.MethodDelete:
		return 3
	}
	return 4
}

// request counts one and the time it took. A status of 0 is a handler that did
// not come to answer.
func (c *counters) request(method string, status int, took time.Duration) {
	class := status / 100
	if class < 2 || class > 5 {
		class = 5
	}
	i := methodIndex(method)
	c.requests[i][class-2].Add(1)
	c.latency[i].add(took)
}

// send counts n bytes sent by a number of sendfile calls. Of those that sent
// all that was wanted, the last one did what it was asked to.
func (c *counters) send(n int64, all bool, calls uint64) {
	c.sendfile.Add(uint64(n))
	c.calls.Add(calls)
	if all && calls > 0 {
		calls--
	}
	c.partial.Add(calls)
}

func (c *counters) load() Stats {
	return Stats{
		Get:      c.requests[0].load(),
		Head:     c.requests[1].load(),
		Put:      c.requests[2].load(),
		Delete:   c.requests[3].load(),
		Other:    c.requests[4].load(),
		Mapped:   c.mapped.Load(),
		Sendfile: c.sendfile.Load(),
		Copied: Copied{
			HTTP2:    c.copied[byHTTP2].Load(),
			TLS:      c.copied[byTLS].Load(),
			Wrapped:  c.copied[byWrapped].Load(),
			Buffered: c.copied[byBuffer].Load(),
		},
		SendfileCalls:   c.calls.Load(),
		SendfilePartial: c.partial.Load(),
		SendfileRefused: c.refused.Load(),
		Aborted:         c.aborted.Load(),
		Fast:            c.fast.Load(),
		HandedOver:      c.handedOver.Load(),
		Waited:          c.waited.Load(),
	}
}

func (c *requestCounters) load() Requests {
	return Requests{Success: c[0].Load(), Redirect: c[1].Load(), ClientError: c[2].Load(), ServerError: c[3].Load()}
}
