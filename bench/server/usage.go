package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what processes have used so far, over all their threads.
type usage struct {
	CPU          time.Duration // exact
	User, System uint64        // clock ticks that were spent there, by samples

	Voluntary, Involuntary uint64 // context switches
}

// usageOf adds up what processes have used. A thread that has ended is not
// counted any more; servers do not end theirs.
func usageOf(pids []int) (u usage, err error) {
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(tasks) == 0 {
			return u, fmt.Errorf("process %d is gone", pid)
		}
		for _, task := range tasks {
			if err := u.add(task); err != nil && !os.IsNotExist(err) {
				return u, err
			}
		}
	}
	return u, nil
}

// add adds what a thread has used, which is told in a directory.
func (u *usage) add(task string) error {
	schedstat, err := os.ReadFile(task + "/schedstat")
	if err != nil {
		return err
	}
	var ns int64
	if _, err := fmt.Sscan(string(schedstat), &ns); err != nil {
		return fmt.Errorf("%s/schedstat: %w", task, err)
	}
	u.CPU += time.Duration(ns)
	stat, err := os.ReadFile(task + "/stat")
	if err != nil {
		return err
	}
	// The name, which may have spaces, ends with the last parenthesis.
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	u.User += number(f[11])
	u.System += number(f[12])
	status, err := os.ReadFile(task + "/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "voluntary_ctxt_switches":
			u.Voluntary += number(strings.TrimSpace(value))
		case "nonvoluntary_ctxt_switches":
			u.Involuntary += number(strings.TrimSpace(value))
		}
	}
	return err
}

func number(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func (u usage) minus(o usage) usage {
	return usage{
		u.CPU - o.CPU, u.User - o.User, u.System - o.System,
		u.Voluntary - o.Voluntary, u.Involuntary - o.Involuntary,
	}
}

// userPart is how much of the time was spent outside of the kernel.
func (u usage) userPart() float64 {
	return float64(u.User) / float64(max(u.User+u.System, 1))
}

// processes are a process and its children.
func processes(pid int) (pids []int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	pids = append(pids, pid)
	for _, f := range strings.Fields(string(text)) {
		pids = append(pids, int(number(f)))
	}
	return pids, err
}
