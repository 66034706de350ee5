package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// campaign is how hard a server is tried. The long form, for CROWFLY_FULL=1, is
// that of the real time-outs.
type campaign struct {
	attackers int
	rounds    int
	requests  int           // of the healthy client in each part of a round
	tick      time.Duration // between two bytes of an attacker
	hold      time.Duration // how long an attack lasts at least
	hurry     bool
}

func newCampaign() campaign {
	if os.Getenv("CROWFLY_FULL") == "1" {
		return campaign{attackers: 2000, rounds: 7, requests: 10_000, tick: time.Second, hold: 9 * time.Second} // 5 for a head, and two ticks until the client knows
	}
	return campaign{attackers: 200, rounds: 1, requests: 1000, tick: 200 * time.Millisecond, hold: 4 * time.Second, hurry: true}
}

// TestAttack: while thousands of clients send or read a byte a second, or nothing, a
// healthy one gets all its answers, and in the long form its 99th percentile is at
// most twice what it is without them: the median of the ratios in some rounds of the
// two in turn, since what else a machine does changes from round to round. The server
// gets rid of them by itself; when they stay away it has as many descriptors as before
// and about as much memory, nothing of the store is open, and nothing of what they have
// begun to write is there. The server and the attackers are processes of their own, so
// what is measured is the server's.
func TestAttack(t *testing.T) {
	k := newCampaign()
	for name, slow := range map[string]string{"fast": "", "nethttp": "1"} {
		t.Run(name, func(t *testing.T) {
			if k.hurry { // then nothing is measured that the other one would disturb
				t.Parallel()
			}
			attackServer(t, k, slow)
		})
	}
}

func attackServer(t *testing.T, k campaign, slow string) {
	needDescriptors(t, 2*k.attackers+200)
	dir := storeOf(t, map[string][]byte{"k": noise(1000, 1), "large": noise(32<<20, 2)})
	env := []string{childSlow + "=" + slow}
	if k.hurry {
		env = append(env, childHurry+"=1")
	}
	server := startChild(t, dir, env...)
	p99(t, server.addr, k.requests)
	c := dial(t, server.addr)
	c.do("GET", "/large", "").wantStatus(t, 200) // which has its file opened
	c.Close()
	before := server.settled(t)

	var calm, attacked []time.Duration
	var during, after figures
	var memory []int64 // after each attack, in KiB
	ended := make([]int, len(attacks))
	for range k.rounds {
		calm = append(calm, p99(t, server.addr, k.requests))
		end, began := startAttack(t, server.addr, k), time.Now()
		time.Sleep(k.hold / 3) // they have all come at once
		attacked = append(attacked, p99(t, server.addr, k.requests))
		time.Sleep(time.Until(began.Add(k.hold)))
		during = server.figures(t)
		if n := server.stats(t).Keys; n != 2 {
			t.Errorf("%d keys under attack", n)
		}
		if k.hurry { // those who read do not know yet, for the kernel has something left for them
			eventually(t, "no response is open", func() bool { return server.stats(t).Process.Values == 0 })
		}
		for i, n := range end() {
			ended[i] += n
		}
		after = server.settled(t)
		memory = append(memory, after.anonymous>>10)
	}
	t.Logf("p99 %v, with %d attackers %v; ended by the server %d; memory %d KiB before, %d under attack, %d after",
		calm, k.attackers, attacked, ended, before.anonymous>>10, during.anonymous>>10, memory)
	wantEnded(t, k, ended)
	if after.descriptors > before.descriptors {
		t.Errorf("%d descriptors, %d before", after.descriptors, before.descriptors)
	}
	if most := before.anonymous + int64(k.attackers)*128<<10 + 32<<20; during.anonymous > most && !raceDetector {
		t.Errorf("%d bytes of memory under attack, want %d at most", during.anonymous, most)
	}
	if after.anonymous > before.anonymous+16<<20 && !raceDetector {
		t.Errorf("%d bytes of memory after all, %d before", after.anonymous, before.anonymous)
	}
	server.wantClean(t)
	var ratios []float64
	for i := range calm {
		ratios = append(ratios, float64(attacked[i])/float64(calm[i]))
	}
	slices.Sort(ratios)
	if ratio := ratios[len(ratios)/2]; !k.hurry && ratio > 2 {
		t.Errorf("the 99th percentile is %.1f times what it is without attackers", ratio)
	}
}

// wantEnded fails if a server has not ended attacks of each kind that its time-outs
// are for. In the long form they have less time than most of those.
func wantEnded(t *testing.T, k campaign, ended []int) {
	t.Helper()
	for i, a := range attacks {
		if a.goOn != "read" && (k.hurry || a.inHead) && ended[i] < k.attackers/len(attacks)/2 {
			t.Errorf("the server has ended %d of %d attackers that begin with %.50q and %s", ended[i], k.attackers/len(attacks), a.begin, a.goOn)
		}
	}
}

// needDescriptors raises what this process may have open, if need be.
func needDescriptors(t *testing.T, n int) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= uint64(n) {
		return
	}
	limit.Cur, limit.Max = uint64(n), max(limit.Max, uint64(n))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		skip(t, fmt.Sprintf("only %d descriptors: %v", limit.Cur, err))
	}
}

// childServer is a server in a process of its own.
type childServer struct {
	addr string
	pid  int
	in   io.Writer
	out  *bufio.Reader
}

func startChild(t *testing.T, dir string, env ...string) *childServer {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childStore+"="+dir), env...)
	cmd.Stderr = os.Stderr
	stdin, out := startPiped(t, cmd)
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
	})
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return &childServer{strings.TrimSpace(strings.TrimPrefix(line, childReady)), cmd.Process.Pid, stdin, out}
}

// figures are what a process takes.
type figures struct {
	descriptors, sockets int
	anonymous            int64 // bytes of memory that are no file's
}

var rssAnon = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)

func (s *childServer) figures(t *testing.T) (f figures) {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		to, err := os.Readlink(name)
		if err != nil {
			continue // closed by now
		}
		f.descriptors++
		if strings.HasPrefix(to, "socket:") {
			f.sockets++
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		t.Fatal(err)
	}
	m := rssAnon.FindSubmatch(text)
	if m == nil {
		skip(t, "the kernel does not tell RssAnon")
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	f.anonymous = kib << 10
	return f
}

// settled are the figures when there are no connections any more, and memory that
// is not needed was given back.
func (s *childServer) settled(t *testing.T) (f figures) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n := s.figures(t).sockets
		if n == 1 { // the one that listens
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d sockets are open, want one", n)
		}
	}
	fmt.Fprintln(s.in, "give memory back")
	if _, err := s.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return s.figures(t)
}

// stats are the figures of its store.
func (s *childServer) stats(t *testing.T) (stats StoreStats) {
	t.Helper()
	c := dial(t, s.addr)
	defer c.Close()
	if err := json.Unmarshal(c.do("GET", "/-/stats", "").body, &stats); err != nil {
		t.Fatal(err)
	}
	return stats
}

// wantClean looks for what attackers may have left in the store.
func (s *childServer) wantClean(t *testing.T) {
	t.Helper()
	stats := s.stats(t)
	if stats.Keys != 2 || stats.Process.Values != 0 || stats.Process.Snapshots != 0 || stats.Blobs != 1 {
		t.Errorf("%d keys, %d blobs, %d open values, %d snapshots", stats.Keys, stats.Blobs, stats.Process.Values, stats.Process.Snapshots)
	}
}

// p99 is a client that does nothing wrong. It makes requests, and returns in how
// much time 99 of 100 are answered.
func p99(t *testing.T, addr string, requests int) time.Duration {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	request := []byte("GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
	answer := make([]byte, askOnce(t, c, request))
	value := noise(1000, 1)
	took := make([]time.Duration, requests)
	for i := range took {
		began := time.Now()
		askAgain(t, c, request, answer)
		took[i] = time.Since(began)
		if !bytes.HasSuffix(answer, value) {
			t.Fatal("other bytes")
		}
	}
	slices.Sort(took)
	return took[requests*99/100]
}

// childAttack is set for a child that attacks the server at the address it names,
// see attackChild, and childAttackers says with how many connections, and how
// long they wait between two bytes.
const (
	childAttack    = "CROWFLY_SERVER_TEST_ATTACK"
	childAttackers = "CROWFLY_SERVER_TEST_ATTACKERS"
)

// attackChild attacks until the parent closes standard input. It says when all
// attackers are there, and how often the server has ended one of each kind.
func attackChild(addr string) error {
	var n int
	var tick time.Duration
	if _, err := fmt.Sscan(os.Getenv(childAttackers), &n, (*int64)(&tick)); err != nil {
		return err
	}
	a := beginAttack(addr, n, tick)
	fmt.Println("all are there")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	for _, n := range a.end() {
		fmt.Println(n)
	}
	return nil
}

// startAttack starts such a child, so that neither the healthy client nor the
// server has the attackers in its process. They get what time the others leave, for
// attackers have machines of their own.
func startAttack(t *testing.T, addr string, k campaign) (end func() (ended []int)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), childAttack+"="+addr, fmt.Sprintf("%s=%d %d", childAttackers, k.attackers, k.tick))
	cmd.Stderr = os.Stderr
	stdin, out := startPiped(t, cmd)
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if err := syscall.Setpriority(syscall.PRIO_PGRP, cmd.Process.Pid, 19); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	return func() []int {
		stdin.Close()
		ended := make([]int, len(attacks))
		for i := range ended {
			if _, err := fmt.Fscan(out, &ended[i]); err != nil {
				t.Fatal(err)
			}
		}
		return ended
	}
}

// attacks are what attackers begin with, and how they go on: by writing a byte at
// a time, by reading one, or by waiting.
var attacks = []struct {
	begin  string
	goOn   string
	inHead bool // of the first request
}{
	{"GET /k HTTP/1.1\r\nHost: localhost\r\n", "write", true},
	{"GET /k?x HTTP/1.1\r\nHost: localhost\r\nX-Odd: ", "write", true},
	{"", "wait", true},
	{"GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n", "wait", false},
	{"PUT /attack/small HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n", "write", false},
	{"PUT /attack/chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "write", false},
	{"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", "read", false},
	{strings.Repeat("GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n", 500), "read", false},
}

// attack is many of them. Each begins again when the server has ended it.
type attack struct {
	stop    chan struct{}
	clients sync.WaitGroup
	ended   []atomic.Int64 // by the server, of each kind
}

// beginAttack returns when all attackers are there.
func beginAttack(addr string, attackers int, tick time.Duration) *attack {
	a := &attack{stop: make(chan struct{}), ended: make([]atomic.Int64, len(attacks))}
	there := make(chan struct{}, attackers)
	for i := range attackers {
		kind := attacks[i%len(attacks)]
		a.clients.Go(func() {
			a.sleep(time.Duration(rand.Int64N(int64(tick)))) // else all would come at once
			for first := true; !a.over(); first = false {
				c, err := net.Dial("tcp", addr)
				if first {
					there <- struct{}{}
				}
				if err != nil {
					return // the server is gone, or has had enough
				}
				c.(*net.TCPConn).SetReadBuffer(4096)
				io.WriteString(c, kind.begin)
				if a.goOn(c.(*net.TCPConn), kind.goOn, tick) {
					a.ended[i%len(attacks)].Add(1)
				}
				c.Close()
			}
		})
	}
	for range attackers {
		<-there
	}
	return a
}

// goOn goes on in some way, and returns true when the server has ended it.
func (a *attack) goOn(c *net.TCPConn, how string, tick time.Duration) bool {
	p := make([]byte, 1)
	for !a.over() {
		var err error
		switch how {
		case "write":
			_, err = io.WriteString(c, "x")
		case "read":
			_, err = io.ReadFull(c, p)
		default:
			c.SetReadDeadline(time.Now().Add(tick))
			if _, err = io.Copy(io.Discard, c); err == nil {
				return true
			}
		}
		if err != nil && !os.IsTimeout(err) {
			return true
		}
		a.sleep(tick)
	}
	return false
}

func (a *attack) over() bool {
	select {
	case <-a.stop:
		return true
	default:
		return false
	}
}

func (a *attack) sleep(d time.Duration) {
	select {
	case <-a.stop:
	case <-time.After(d):
	}
}

// end calls the attackers off, and returns how often the server has ended one of
// each kind.
func (a *attack) end() (ended []int64) {
	close(a.stop)
	a.clients.Wait()
	for i := range a.ended {
		ended = append(ended, a.ended[i].Load())
	}
	return ended
}
