package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// cell is what was measured with objects of one size and a number of connections.
type cell struct {
	class
	conns int
	lines []*line
}

// line is a cell of one server.
type line struct {
	*contestant
	rounds []outcome
	calls  map[string]float64 // system calls for each request
}

// measure measures every server in turn, several times.
func (c config) measure(out io.Writer, dir string) (cells []*cell, err error) {
	algorithm, err := ownNetwork()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "TCP          %s\n", algorithm)
	fmt.Fprintf(out, "workload     %v of each size and number of connections, %d times\n\n", c.length, c.rounds)
	x, err := c.newContest(dir)
	if err != nil {
		return nil, err
	}
	servers, err := x.startAll()
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.end())
		}
	}()
	if err != nil {
		return nil, err
	}
	for _, class := range x.classes {
		for _, conns := range c.conns {
			cell, err := x.cell(class, conns, servers)
			if err != nil {
				return nil, err
			}
			cells = append(cells, cell)
			fmt.Fprintf(out, "%d bytes, %d connections: done\n", class.size, conns)
		}
	}
	return cells, nil
}

// startAll starts each server on all processors and, if there are several, those
// that can do with one on the first.
func (x *contest) startAll() (list []*contestant, err error) {
	for _, cpus := range [][]int{nil, {0}} {
		for _, name := range []string{crowfly, nginx1, nginx2, bareLoop} {
			if !x.wanted(name) || len(cpus) > 0 && (name == nginx2 || runtime.NumCPU() == 1) {
				continue
			}
			s, err := x.start(name, cpus)
			if err != nil {
				return list, err
			}
			list = append(list, s)
			if err := x.warmUp(s); err != nil {
				return list, fmt.Errorf("%s: %w", s.label(), err)
			}
		}
	}
	return list, nil
}

// warmUp asks a server for every object, and compares all of it.
func (x *contest) warmUp(s *contestant) error {
	for _, class := range x.classes {
		j := job{Conns: 1, Loops: 1, Limit: class.count, InOrder: true, Every: 1}
		if _, err := x.run(j, class, s); err != nil {
			return err
		}
	}
	return nil
}

// cell measures it. Each round begins with another server.
func (x *contest) cell(class class, conns int, servers []*contestant) (*cell, error) {
	c := &cell{class: class, conns: conns}
	for _, s := range servers {
		c.lines = append(c.lines, &line{contestant: s})
	}
	j := job{Conns: conns, Warm: x.warm, Length: x.length, Every: 1000}
	for round := range x.rounds {
		for i := range c.lines {
			l := c.lines[(round+i)%len(c.lines)]
			o, err := x.run(j, class, l.contestant)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.label(), err)
			}
			l.rounds = append(l.rounds, o)
		}
	}
	if x.traced == 0 {
		return c, nil
	}
	for _, l := range c.lines {
		var err error
		if l.calls, err = x.trace(class, conns, l.contestant); err != nil {
			return nil, fmt.Errorf("%s under strace: %w", l.label(), err)
		}
	}
	return c, nil
}

// run has a client do a job, on the processors that the server does not have
// for itself.
func (x *contest) run(j job, class class, s *contestant) (o outcome, err error) {
	j.Address, j.Server, j.Size, j.Count = s.address, s.pids, class.size, class.count
	var cpus []int
	if len(s.cpus) > 0 {
		for i := len(s.cpus); i < runtime.NumCPU(); i++ {
			cpus = append(cpus, i)
		}
	}
	if j.Loops == 0 {
		j.Loops = min(j.Conns, runtime.NumCPU()-len(s.cpus))
	}
	cmd, err := child(roleLoad)
	if err != nil {
		return o, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return o, err
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return o, err
	}
	cmd.Stderr = os.Stderr
	if err := startOn(cmd, cpus); err != nil {
		return o, err
	}
	err = errors.Join(json.NewEncoder(in).Encode(j), json.NewDecoder(answer).Decode(&o))
	return o, errors.Join(err, in.Close(), cmd.Wait())
}
