package server

import (
	"errors"
	"net/http"

	"github.com/crowfly/crowfly/db"
)

// put answers PUT of a key. What can be refused is refused before the body is
// read, so a client that waits for 100 Continue does not send it in vain.
// Nothing is stored unless the whole body has come.
func (x *exchange) put() {
	m, ok := x.requestMetadata()
	if !ok || !x.mayUpload() {
		return
	}
	o, ok := x.requirement()
	if !ok {
		return
	}
	o.Metadata = &m
	result, ok := x.upload(o)
	if !ok {
		return
	}
	x.w.Header().Set("ETag", etagOf(result.Version))
	if result.Existed {
		x.writeHeader(http.StatusNoContent)
		return
	}
	x.w.Header().Set("Content-Length", "0")
	x.writeHeader(http.StatusCreated)
}

// delete answers DELETE of a key.
func (x *exchange) delete() {
	o, ok := x.requirement()
	if !ok {
		return
	}
	if err := x.store.Delete(x.key, o); err != nil {
		x.fail(err)
		return
	}
	x.writeHeader(http.StatusNoContent)
}

// requirement holds the conditions of a PUT or DELETE against the present
// value, and answers if they don't hold. If they do it returns what must be so
// at the moment of the write for them to hold then as well.
func (x *exchange) requirement() (*db.PutOptions, bool) {
	if !conditional(x.r.Header) {
		return &db.PutOptions{}, true
	}
	current, err := x.present()
	absent := errors.Is(err, db.ErrNotFound)
	if err != nil && (!absent || x.r.Method == http.MethodDelete) {
		x.fail(err) // conditions only matter where there would be success
		return nil, false
	}
	if current.evaluate(x.r) != proceed {
		x.fail(db.ErrPrecondition)
		return nil, false
	}
	return current.required(x.r), true
}

// present returns the validators of the present value, the zero ones with
// db.ErrNotFound if there is none.
func (x *exchange) present() (validators, error) {
	v, err := x.store.Value(x.key)
	if err != nil {
		return validators{}, err
	}
	defer v.Close()
	m, err := v.Metadata()
	return validatorsOf(v, &m), err
}

// conditional reports whether a write has conditions.
func conditional(h http.Header) bool {
	return len(h["If-Match"])+len(h["If-None-Match"])+len(h["If-Unmodified-Since"]) > 0
}
