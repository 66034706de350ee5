package server

import (
	"errors"
	"net/http"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment/vfs"
)

// put answers PUT of a key. What can be refused is refused before the body is
// read, so a client that waits for 100 Continue does not send it in vain.
// Nothing is stored unless the whole body has come.
func (x *exchange) put() {
	if !x.means() {
		return
	}
	m, bad := x.q.metadata(x.now())
	var digests []digest
	if bad == nil {
		digests, bad = digestsOf(x.r.Header)
	}
	if bad != nil {
		x.problem(bad.status, bad.detail)
		return
	}
	if !x.mayUpload() {
		return
	}
	o, err := x.requirement(&x.q)
	if err != nil {
		x.fail(err)
		return
	}
	o.Metadata = &m
	if result, ok := x.upload(o, digests); ok {
		var a answer
		a.stored(result)
		x.answer(&a)
	}
}

// delete answers DELETE of a key.
func (x *exchange) delete() {
	if !x.means() {
		return
	}
	o, err := x.requirement(&x.q)
	if err == nil {
		err = x.store.Delete(x.q.key, o)
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.writeHeader(http.StatusNoContent)
}

// means reports whether a write is what its method and key say, and refuses it
// if not.
func (x *exchange) means() bool {
	bad := refuseWrite(x.r)
	if bad == nil {
		bad = x.q.refuseWrite()
	}
	if bad != nil {
		x.problem(bad.status, bad.detail)
	}
	return bad == nil
}

// requirement holds the conditions of a PUT or DELETE against the present
// value. If they hold it returns what must be so at the moment of the write for
// them to hold then as well, and db.ErrPrecondition if they don't. The record of the
// present value is brought in, since the write looks at it too.
func (h *Handler) requirement(q *request) (*db.PutOptions, error) {
	if h.frozen {
		return nil, db.ErrReadOnly // whatever the conditions are
	}
	if !q.conditional() {
		_ = h.store.Prefetch(q.key, 0) // what the disk can't read is said by the write
		return &db.PutOptions{}, nil
	}
	current, err := h.present(q.key)
	absent := errors.Is(err, db.ErrNotFound)
	if err != nil && (!absent || q.method == http.MethodDelete) {
		return nil, err // conditions only matter where there would be success
	}
	if current.evaluate(q) != proceed {
		return nil, db.ErrPrecondition
	}
	return current.required(q), nil
}

// present returns the validators of the present value, the zero ones with
// db.ErrNotFound if there is none.
func (h *Handler) present(key []byte) (current validators, err error) {
	err = h.lend(key, vfs.Resident, func() {}, func(v db.Lent) error {
		m, err := v.Metadata()
		current = validatorsOf(&v, &m)
		return err
	})
	return current, err
}
