package server

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/crowfly/crowfly/db"
)

// BenchmarkCPU answers how much processor time a server spends on a GET, with 16
// keep-alive connections and the clients in another process: server-ns/op. The
// time on the clock is that of both.
func BenchmarkCPU(b *testing.B) {
	dir := b.TempDir()
	store, err := db.Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	sizes := []int{1000, 4000, 16 << 10, 64 << 10, 1 << 20}
	for _, n := range sizes {
		m := &db.Metadata{ModTime: exampleTime, ContentType: "text/html"}
		if err := store.Put(fmt.Append(nil, n), noise(n, 1), &db.PutOptions{Metadata: m}); err != nil {
			b.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("size=%d/fast", n), func(b *testing.B) { benchCPU(b, dir, fmt.Sprint(n), "") })
		b.Run(fmt.Sprintf("size=%d/nethttp", n), func(b *testing.B) { benchCPU(b, dir, fmt.Sprint(n), "1") })
	}
}

func benchCPU(b *testing.B, dir, key, slow string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childStore+"="+dir, childSlow+"="+slow)
	stdin, out := startPiped(b, cmd)
	defer cmd.Wait()
	defer stdin.Close()
	line, err := out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	addr := strings.TrimSpace(strings.TrimPrefix(line, childReady))

	request := []byte("GET /" + key + " HTTP/1.1\r\nHost: localhost:7070\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
	var clients sync.WaitGroup
	const conns = 16
	turns := make([]func(), conns)
	for i := range turns {
		c := benchDial(b, addr)
		answer := make([]byte, askOnce(b, c, request))
		turns[i] = func() {
			for range (b.N + conns - 1) / conns {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Error(err)
					return
				}
			}
		}
	}
	before := cpuTime(b, cmd.Process.Pid)
	b.ResetTimer()
	for _, turn := range turns {
		clients.Go(turn)
	}
	clients.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b, cmd.Process.Pid)-before)/float64(b.N), "server-ns/op")
}

// cpuTime is the processor time of all threads of a process, in nanoseconds.
func cpuTime(b *testing.B, pid int) (sum int64) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Fatal("no schedstat: ", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			b.Fatal(err)
		}
		sum += ns
	}
	return sum
}
