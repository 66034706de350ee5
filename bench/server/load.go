package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowfly/crowfly/bench/measure"
)

// job is what a child that is a client does: it keeps a request under way on
// each of its connections, for a random object, and looks at the server's
// processes before and after.
type job struct {
	Address string
	Size    int64
	Count   int // of objects
	Conns   int
	Loops   int           // threads, among which the connections are divided
	Warm    time.Duration // that does not count
	Length  time.Duration
	Server  []int // processes
	Limit   int   // of requests on all connections, 0 for none; if there is one, all count
	InOrder bool  // one object after the other
	Every   int   // how many answers there are for one that is compared byte for byte
}

// outcome is what came of a job.
type outcome struct {
	Requests       float64 // by the bytes that came, since large ones take long
	Took           time.Duration
	P50, P99, P999 time.Duration
	Server, Client usage
}

// print does the job in a process that has nothing else to do.
func (j job) print(out io.Writer) error {
	debug.SetGCPercent(-1) // it makes next to no garbage
	runtime.GOMAXPROCS(j.Loops + 1)
	o, err := j.run()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(o)
}

// phase is what all loops are to do.
type phase struct {
	counts atomic.Bool // what they do
	stop   atomic.Bool
	asked  atomic.Int64 // requests, if they have a limit

	failed   atomic.Bool // one of them
	answered atomic.Bool // once, at least, while everything counted
}

func (j job) run() (o outcome, err error) {
	var p phase
	p.counts.Store(j.Limit > 0)
	loops, err := j.connect(&p)
	if err != nil {
		return o, err
	}
	var wait sync.WaitGroup
	for _, l := range loops {
		wait.Go(l.run)
	}
	if j.Limit == 0 {
		err = j.time(&o, &p)
	}
	wait.Wait()
	return o, errors.Join(err, j.collect(&o, loops))
}

// time has the loops run for as long as it should be, and stops them.
func (j job) time(o *outcome, p *phase) error {
	defer p.stop.Store(true)
	time.Sleep(j.Warm)
	client := []int{unix.Getpid()}
	server0, err1 := usageOf(j.Server)
	client0, err2 := usageOf(client)
	began := time.Now()
	p.counts.Store(true)
	time.Sleep(j.Length)
	for !p.answered.Load() && !p.stop.Load() {
		time.Sleep(j.Length) // something is very slow
	}
	p.counts.Store(false)
	o.Took = time.Since(began)
	server1, err3 := usageOf(j.Server)
	client1, err4 := usageOf(client)
	o.Server, o.Client = server1.minus(server0), client1.minus(client0)
	return errors.Join(err1, err2, err3, err4)
}

func (j job) collect(o *outcome, loops []*loop) (err error) {
	var all measure.Histogram
	var bytes int64
	for _, l := range loops {
		all.Merge(&l.times)
		bytes += l.bytes
		if l.checked == 0 && l.err == nil {
			l.err = errors.New("nothing was checked")
		}
		err = errors.Join(err, l.err)
		l.close()
	}
	o.Requests = float64(bytes) / float64(j.Size)
	o.P50, o.P99, o.P999 = all.Quantile(0.5), all.Quantile(0.99), all.Quantile(0.999)
	return err
}

// connect opens the connections.
func (j job) connect(p *phase) (loops []*loop, err error) {
	requests := j.requests()
	for i := range j.Loops {
		l := &loop{
			phase: p, job: j, requests: requests, began: time.Now(), body: make([]byte, j.Size),
			rng: rand.New(rand.NewPCG(uint64(i), 1)),
		}
		loops = append(loops, l)
		if l.epoll, err = unix.EpollCreate1(0); err != nil {
			return nil, err
		}
	}
	for i := range j.Conns {
		if err := loops[i%j.Loops].open(j.Address); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", j.Address, err)
		}
	}
	return loops, nil
}

// requests are those for all objects.
func (j job) requests() (all [][]byte) {
	for i := range j.Count {
		r := object([]byte("GET /"), j.Size, i)
		all = append(all, fmt.Appendf(r, " HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n", j.Address))
	}
	return all
}
