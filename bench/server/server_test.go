package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(role); child != "" {
		os.Exit(runChild(child))
	}
	os.Exit(m.Run())
}

// skip skips a test, except where it must not be.
func skip(t *testing.T, reason any) {
	t.Helper()
	if os.Getenv("CROWFLY_NO_SKIP") == "1" {
		t.Fatal("not skipped: ", reason)
	}
	t.Skip(reason)
}

// The whole program runs: every server answers, with the right bytes, and
// everything is measured. What comes out on so small a scale is no matter.
func TestProgram(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		skip(t, err)
	}
	c := config{
		length: 50 * time.Millisecond, warm: 10 * time.Millisecond, rounds: 2, traced: 100, bytes: 3 << 20,
		sizes: []int64{1 << 10, 64 << 10, 2 << 20}, conns: []int{manyConns},
		profile: filepath.Join(t.TempDir(), "profile"),
	}
	cells, err := c.measure(t.Output(), t.TempDir())
	if errors.Is(err, errMissing) || errors.Is(err, errBBR) || err != nil && strings.Contains(err.Error(), "PTRACE") {
		skip(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	table(t.Output(), cells)
	judged := 0
	for _, c := range cells {
		for _, l := range c.lines {
			checkLine(t, c, l)
		}
		judged += len(c.promises())
	}
	if len(cells) != 3 || judged < 3*2 {
		t.Errorf("%d cells, %d promises", len(cells), judged)
	}
	if f, err := os.Stat(c.profile); err != nil || f.Size() == 0 {
		t.Errorf("profile: %v", err)
	}
}

func checkLine(t *testing.T, c *cell, l *line) {
	t.Helper()
	if len(l.rounds) != 2 {
		t.Fatalf("%s: %d rounds", l.label(), len(l.rounds))
	}
	for _, o := range l.rounds {
		if o.Requests <= 0 || o.P50 <= 0 || o.P99 < o.P50 || o.P999 < o.P99 || o.Server.CPU <= 0 || o.Client.CPU <= 0 {
			t.Errorf("%s, %d bytes, %d connections: %+v", l.label(), c.size, c.conns, o)
		}
	}
	sends := l.calls["writev"] + l.calls["sendmsg"]
	if c.size >= medium {
		sends = l.calls["sendfile"]
	}
	if sends < 0.99 {
		t.Errorf("%s, %d bytes: %v", l.label(), c.size, l.calls)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-sizes", "0"}, {"-conns", "1,x"}, {"-rounds", "0"}, {"-for", "0s"}, {"-no"}} {
		var out strings.Builder
		if run(args, &out) != 2 {
			t.Errorf("%q: %s", args, &out)
		}
	}
}

// answering answers each request on one connection, with what answer makes of
// how many there have been.
func answering(t *testing.T, answer func(i int) string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for i := 0; ; i++ {
			for line := ""; line != "\r\n"; {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
			}
			if _, err := c.Write([]byte(answer(i))); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

// The client finds an answer that is not the right one: a status, a length, a
// byte. Method: a server that does one thing wrong, and one that does
// nothing wrong.
func TestClientChecks(t *testing.T) {
	const size, count = 20_000, 3
	right := func(i int) string {
		body := make([]byte, size)
		fill(body, i%count)
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body)
	}
	last := func(answer string) func(int) string {
		return func(i int) string {
			if i < 2*count-1 {
				return right(i)
			}
			return answer
		}
	}
	good := right(2*count - 1)
	for name, c := range map[string]struct {
		answer func(int) string
		ok     bool
	}{
		"right":        {right, true},
		"status":       {last("HTTP/1.1 404 Not Found\r\nContent-Length: 20000\r\n\r\n"), false},
		"length":       {last(strings.Replace(good, "20000", "19999", 1)), false},
		"first byte":   {last(changed(good, len(good)-size)), false},
		"last byte":    {last(changed(good, len(good)-1)), false},
		"other object": {last(right(0)), false},
		"more":         {last(strings.Replace(good, "20000", "1", 1)), false},
	} {
		j := job{Address: answering(t, c.answer), Size: size, Count: count, Conns: 1, Loops: 1, Limit: 2 * count, InOrder: true, Every: 1}
		o, err := j.run()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && (o.Requests != 2*count || o.P50 <= 0) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// changed has another byte at i.
func changed(s string, i int) string { return s[:i] + string([]byte{s[i] ^ 1}) + s[i+1:] }

// What a process has used is what the kernel tells it by itself. Method: work
// until it says that it was a lot.
func TestUsage(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := usageOf(self)
	if err != nil {
		t.Fatal(err)
	}
	const work = 300 * time.Millisecond
	first, sum := rusage(t), 0
	for rusage(t)-first < work {
		for i := range 1 << 20 {
			sum += i * sum
		}
	}
	after, err := usageOf(self)
	if err != nil {
		t.Fatal(err)
	}
	u := after.minus(before)
	if u.CPU < work*9/10 || u.User+u.System < 10 || u.userPart() <= 0 || u.userPart() > 1 {
		t.Errorf("%+v after %v (sum %d)", u, work, sum)
	}
	for range 100 {
		time.Sleep(time.Microsecond)
	}
	if later, _ := usageOf(self); later.Voluntary == after.Voluntary {
		t.Errorf("no context switches: %+v", later)
	}
	if _, err := usageOf([]int{1 << 30}); err == nil {
		t.Error("a process that there is not")
	}
}

// rusage is the processor time of this process.
func rusage(t *testing.T) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// The table of strace is understood.
func TestReadCalls(t *testing.T) {
	report := filepath.Join(t.TempDir(), "calls")
	const text = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           3       200           sendmsg
 40.00    0.000400           1       400       100 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           1       600       100 total
`
	if err := os.WriteFile(report, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	calls, err := readCalls(report, 200)
	if err != nil || len(calls) != 2 || callList(calls) != "read 2.00, sendmsg 1.00" || sum(calls) != 3 {
		t.Error(calls, err)
	}
	if err := os.WriteFile(report, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readCalls(report, 200); err == nil {
		t.Error("nothing is no table")
	}
}

// What is compared is what was measured in the same round. Method: a machine that
// becomes slower.
func TestRatio(t *testing.T) {
	var slow, fast line
	for cpu := range 9 {
		o := outcome{Requests: 1}
		o.Server.CPU = time.Duration(cpu + 1)
		fast.rounds = append(fast.rounds, o)
		o.Server.CPU *= 2
		if cpu == 4 {
			o.Server.CPU *= 10
		}
		slow.rounds = append(slow.rounds, o)
	}
	if r := slow.ratio(&fast, outcome.cpu); r != 2 {
		t.Errorf("a ratio of 2 is %v", r)
	}
}

// Each promise is judged, on both sides of its limit. Method: servers that are
// all the same but for crowfly, which is at a limit or just beyond.
func TestPromises(t *testing.T) {
	one := func(name string, cpus []int, cpu, rate, p99 float64) *line {
		const requests = 1e6
		o := outcome{Requests: requests, Took: time.Duration(requests / rate * 1e9), P99: time.Duration(p99 * 1e6)}
		o.Server.CPU = time.Duration(cpu * 1e3 * requests)
		return &line{contestant: &contestant{name: name, cpus: cpus}, rounds: []outcome{o}}
	}
	for _, c := range []struct {
		size           int64
		cpu, rate, p99 float64 // of crowfly
		missed         int
	}{
		{1 << 10, 6.9, 111, 99, 0},
		{1 << 10, 7.1, 111, 99, 2}, // with 1 CPU and with all
		{1 << 10, 6.9, 109, 99, 1},
		{1 << 10, 6.9, 111, 101, 1},
		{1 << 10, 7.6, 111, 99, 4}, // the bare loop too
		{64 << 10, 6.9, 121, 99, 0},
		{64 << 10, 6.9, 119, 99, 1},
		{1 << 20, 9.9, 1, 1000, 0},
		{1 << 20, 10.1, 1, 1000, 2},
	} {
		x := &cell{class: class{size: c.size}, conns: manyConns}
		for _, cpus := range [][]int{nil, {0}} {
			x.lines = append(x.lines, one(crowfly, cpus, c.cpu, c.rate, c.p99),
				one(nginx1, cpus, 10, 50, 50), one(bareLoop, cpus, 5, 1000, 1))
		}
		x.lines = append(x.lines, one(nginx2, nil, 1, 100, 100))
		missed := 0
		for _, p := range promises([]*cell{x}) {
			if !p.kept() {
				missed++
			}
		}
		if missed != c.missed {
			t.Errorf("%+v: %v", c, promises([]*cell{x}))
		}
	}
}
