package server

import (
	"bytes"
	"context"
	"time"

	"github.com/crowfly/crowfly/db"
)

const (
	// fastBody is the size of the largest body that the fast path takes.
	fastBody = 64 << 10

	// bodyWait is how long it waits for one. Then it is net/http's to wait.
	bodyWait = time.Second
)

// put answers PUT of a key, once all of its body has come.
func (c *fastConn) put() move {
	if c.head.length > min(fastBody, c.handler.maxBody) {
		return handOver
	}
	if !c.handler.inFlight.take(c.head.length, 0) {
		return handOver // which refuses it, if it is still so
	}
	defer c.handler.inFlight.give(c.head.length)
	c.mayWait()
	body, ok := c.receive(int(c.head.length))
	if !ok {
		return handOver
	}
	a := &c.answer
	a.fields, a.text = a.fields[:0], nil
	if result, bad := c.handler.putSmall(&c.head.request, body); bad != nil {
		a.refuse(*bad, nil)
	} else {
		a.stored(result)
	}
	c.failed = c.send(time.Now())
	return c.done(min(c.head.size+len(body), c.end-c.next))
}

// receive returns a body of n bytes. It lies among the unread bytes, or behind
// all of them in memory of its own.
func (c *fastConn) receive(n int) (body []byte, ok bool) {
	got := c.in[c.next+c.head.size : c.end]
	if len(got) >= n {
		return got[:n], true
	}
	body = make([]byte, n)
	k := copy(body, got)
	m, err := c.fill(body[k:], min(bodyWait, c.handler.pace.grace))
	if err != nil {
		c.more = body[k : k+m]
	}
	return body, err == nil
}

// putSmall stores a value, or says why not.
func (h *Handler) putSmall(q *request, value []byte) (db.Result, *refusal) {
	if bad := q.refuseWrite(); bad != nil {
		return db.Result{}, bad
	}
	m, bad := q.metadata(h.now())
	if bad != nil {
		return db.Result{}, bad
	}
	o, err := h.requirement(q)
	var result db.Result
	if err == nil {
		o.Metadata = &m
		result, err = h.store.PutReader(context.Background(), q.key, bytes.NewReader(value), int64(len(value)), o)
	}
	if err != nil {
		r := h.failure(q.method, err)
		return result, &r
	}
	return result, nil
}
