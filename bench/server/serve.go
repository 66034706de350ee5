package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"time"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

// role is set in the environment of a child of this program, to what it is. It
// gets the rest as JSON on standard input.
const role = "CROWFLY_BENCH_ROLE"

const (
	roleServe = "serve"
	roleLoad  = "load"
)

// runChild returns the exit status.
func runChild(what string) int {
	in := json.NewDecoder(os.Stdin)
	var err error
	switch what {
	case roleServe:
		var s served
		if err = in.Decode(&s); err == nil {
			err = s.run()
		}
	case roleLoad:
		var j job
		if err = in.Decode(&j); err == nil {
			err = j.print(os.Stdout)
		}
	default:
		err = fmt.Errorf("%s=%q", role, what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// served is a store that a child serves, as the command does.
type served struct {
	Store   string
	Profile string // a file for a CPU profile, if any
}

// run writes the address and ends with standard input.
func (s served) run() (err error) {
	store, err := db.Open(s.Store, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	srv := server.New(store, nil)
	l, err := server.Listen("127.0.0.1:0", nil)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	stop, err := profile(s.Profile)
	if err != nil {
		return err
	}
	defer stop()
	fmt.Println(l.Addr())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(srv.Shutdown(ctx), <-done)
}

// profile writes a CPU profile, if there is a name for it, until stop is called.
func profile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// fillStore makes a store with all objects.
func fillStore(dir string, list []class) (err error) {
	store, err := db.Open(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	o := &db.PutOptions{Sync: db.SyncNever, Metadata: &db.Metadata{ModTime: time.Now(), ContentType: "application/octet-stream"}}
	return eachObject(list, func(key, value []byte) error { return store.Put(key, value, o) })
}

// eachObject calls back with each object. Both slices are good for the call.
func eachObject(list []class, fn func(key, value []byte) error) error {
	var key []byte
	for _, class := range list {
		value := make([]byte, class.size)
		for i := range class.count {
			fill(value, i)
			key = object(key[:0], class.size, i)
			if err := fn(key, value); err != nil {
				return err
			}
		}
	}
	return nil
}
