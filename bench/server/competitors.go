package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The servers, by the names they have in the table.
const (
	crowfly  = "crowfly"
	nginx1   = "nginx-1"
	nginx2   = "nginx-2"
	bareLoop = "bare-loop"
)

// contest is what all servers have in common.
type contest struct {
	config
	classes []class
	files   string // directory of nginx and the loop, with a file for each object
	scratch string
	nginx   string // the program
	loop    string // the program
}

// contestant is a server that runs.
type contestant struct {
	name    string
	cpus    []int // that it runs on, none for all
	cmd     *exec.Cmd
	pids    []int
	address string
	end     func() error
}

// label says which server it is and where.
func (s *contestant) label() string {
	if len(s.cpus) == 0 {
		return s.name
	}
	return s.name + ", 1 CPU"
}

// newContest finds the programs and makes the objects.
func (c config) newContest(dir string) (_ *contest, err error) {
	x := &contest{
		config: c, classes: c.classes(), scratch: dir,
		files: filepath.Join(dir, "files"), loop: filepath.Join(dir, "loop"),
	}
	if x.nginx, err = findNginx(); err != nil {
		return nil, err
	}
	if err := compileLoop(x.loop); err != nil {
		return nil, err
	}
	return x, fillFiles(x.files, x.classes)
}

var errMissing = errors.New("apt-get install nginx-light gcc libc6-dev")

func findNginx() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no nginx: %w", errMissing)
}

//go:embed loop.c
var loopSource []byte

func compileLoop(program string) error {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return fmt.Errorf("no C compiler: %w", errMissing)
	}
	cmd := exec.Command(cc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, "-x", "c", "-")
	cmd.Stdin = bytes.NewReader(loopSource)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loop.c: %w\n%s", err, text)
	}
	return nil
}

// fillFiles makes a file for each object.
func fillFiles(dir string, list []class) error {
	for _, c := range list {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(c.size)), 0o777); err != nil {
			return err
		}
	}
	return eachObject(list, func(key, value []byte) error {
		return os.WriteFile(filepath.Join(dir, string(key)), value, 0o666)
	})
}

// start starts a server on some processors.
func (x *contest) start(name string, cpus []int) (s *contestant, err error) {
	switch name {
	case crowfly:
		s, err = x.startCrowfly(cpus)
	case nginx1:
		s, err = x.startNginx(1, cpus)
	case nginx2:
		s, err = x.startNginx(2, cpus)
	default:
		s, err = x.startLoop(cpus)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s.name, s.cpus = name, cpus
	if s.pids, err = processes(s.cmd.Process.Pid); err != nil {
		err = errors.Join(err, s.end())
	}
	return s, err
}

func (x *contest) startCrowfly(cpus []int) (*contestant, error) {
	dir, err := os.MkdirTemp(x.scratch, "store-")
	if err != nil {
		return nil, err
	}
	if err := fillStore(dir, x.classes); err != nil {
		return nil, err
	}
	s := served{Store: dir}
	if len(cpus) == 0 {
		s.Profile = x.profile
	}
	cmd, err := child(roleServe)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return startPiped(cmd, cpus, append(text, '\n'))
}

func (x *contest) startLoop(cpus []int) (*contestant, error) {
	cmd := exec.Command(x.loop, x.files)
	for _, c := range x.classes {
		cmd.Args = append(cmd.Args, fmt.Sprintf("%d:%d", c.size, c.count))
	}
	return startPiped(cmd, cpus, nil)
}

// startPiped starts a server that writes its address and ends with its standard
// input, which begins with text.
func startPiped(cmd *exec.Cmd, cpus []int, text []byte) (*contestant, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := startOn(cmd, cpus); err != nil {
		return nil, err
	}
	end := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	_, err = in.Write(text)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return &contestant{cmd: cmd, address: strings.TrimSpace(line), end: end}, nil
}

// child is this program again, in another role.
func child(what string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"="+what)
	return cmd, nil
}

// startOn starts a process that is to stay on some processors, if there are any.
// It belongs into the goroutine that ownNetwork was called from.
func startOn(cmd *exec.Cmd, cpus []int) error {
	if len(cpus) == 0 {
		return cmd.Start()
	}
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}
