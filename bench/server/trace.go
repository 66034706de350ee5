package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// trace counts the system calls of a server under strace, which takes so much
// time that nothing else is measured meanwhile.
func (x *contest) trace(class class, conns int, s *contestant) (calls map[string]float64, err error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, fmt.Errorf("%w (apt-get install strace, or -traced 0)", err)
	}
	report := filepath.Join(x.scratch, "calls")
	cmd := exec.Command(strace, "-f", "-c", "-o", report)
	for _, pid := range s.pids {
		cmd.Args = append(cmd.Args, "-p", fmt.Sprint(pid))
	}
	messages, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	requests := min(x.traced, 10*class.count)
	if err = attached(messages, len(s.pids)); err == nil {
		_, err = x.run(job{Conns: conns, Limit: requests, Every: 100}, class, s)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // it ends with the signal
	if err != nil {
		return nil, err
	}
	return readCalls(report, float64(requests))
}

// attached waits until strace says of so many processes that it has them.
func attached(messages io.Reader, processes int) error {
	var all []string
	lines := bufio.NewScanner(messages)
	for lines.Scan() {
		all = append(all, lines.Text())
		if strings.Contains(lines.Text(), " attached") {
			processes--
		}
		if processes == 0 {
			go io.Copy(io.Discard, messages)
			return nil
		}
	}
	return errors.New(strings.Join(all, "; "))
}

// readCalls reads the table of strace -c: columns of which the fourth is how
// many calls there were, and the last the name.
func readCalls(report string, requests float64) (map[string]float64, error) {
	text, err := os.ReadFile(report)
	calls := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n := number(f[3]); n > 0 {
			calls[f[len(f)-1]] = float64(n) / requests
		}
	}
	if err == nil && len(calls) == 0 {
		err = fmt.Errorf("no table of calls: %s", text)
	}
	return calls, err
}
