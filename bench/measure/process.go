package measure

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
)

// Process is what this process takes.
type Process struct {
	Anon, File, Shmem int64 // bytes in memory: its own, of mapped files, shared
	Heap              int64 // bytes of objects in Go's heap, dead ones too
	Maps              int   // mappings that can be read or written
	Barred            int   // and those that can't: address ranges that are held back
	Descriptors       int
}

// ThisProcess measures it.
func ThisProcess() (p Process, err error) {
	for name, to := range map[string]*int64{"RssAnon": &p.Anon, "RssFile": &p.File, "RssShmem": &p.Shmem} {
		kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/self/status", name), " kB"), 10, 64)
		if err != nil {
			return p, err
		}
		*to = kib << 10
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return p, err
	}
	p.Barred = bytes.Count(maps, []byte(" ---p "))
	p.Maps = bytes.Count(maps, []byte("\n")) - p.Barred
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return p, err
	}
	p.Descriptors = len(fds) - 1 // without the one that read them
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	p.Heap = int64(heap[0].Value.Uint64())
	return p, nil
}
