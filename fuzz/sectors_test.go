package fuzz

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/crowfly/crowfly/segment"
)

// sectorSize is what a disk reads and writes in one piece.
const sectorSize = 512

// sectorAt is a sector of a file.
type sectorAt struct {
	name string
	off  int
}

func (s sectorAt) String() string { return fmt.Sprintf("%s at %d", s.name, s.off) }

// sectors are all sectors of all files.
func (p *past) sectors(t *testing.T) (list []sectorAt) {
	for _, name := range p.disk.Names() {
		b, err := p.disk.ReadFile(name)
		check(t, err)
		for off := 0; off < len(b); off += sectorSize {
			list = append(list, sectorAt{name, off})
		}
	}
	return list
}

func (v victim) sector(s sectorAt) []byte {
	b, err := v.disk.ReadFile(s.name)
	if err != nil {
		panic(err)
	}
	return b[s.off:min(s.off+sectorSize, len(b))]
}

// withSector returns the same store with one sector that reads as content. What
// is missing of it reads as zeros.
func (v victim) withSector(s sectorAt, content []byte) victim {
	return v.damaged(s.name, func(b []byte) []byte {
		lost := b[s.off:min(s.off+sectorSize, len(b))]
		clear(lost[copy(lost, content):])
		return b
	}).before(int64(s.off + sectorSize))
}

// TestDamageSectors promises that a write that was lost or went to the wrong
// place never makes a wrong answer. Method: every sector of every file reads as
// zeros, as each other sector of all files, and as it read at any time before.
func TestDamageSectors(t *testing.T) {
	step := stride(t, 29)
	for kind, p := range victims(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			all := p.sectors(t)
			for i, to := range all {
				t.Run(to.String(), func(t *testing.T) {
					t.Parallel()
					for j, content := range p.misreads(t, all, to) {
						if j > 0 && (i+j)%step != 0 {
							continue // but always zeros
						}
						if _, err := p.withSector(to, content).judge(); err != nil {
							t.Fatalf("reads as %.16x...: %v", content, err)
						}
					}
				})
			}
		})
	}
}

// misreads is what a sector may read as: zeros first.
func (p *past) misreads(t *testing.T, all []sectorAt, s sectorAt) (list [][]byte) {
	list = append(list, nil)
	for _, other := range all {
		list = append(list, p.sector(other))
	}
	for name, versions := range p.versions {
		if !comesBefore(name, s.name) {
			continue
		}
		for _, b := range versions {
			if s.off < len(b) {
				list = append(list, b[s.off:min(s.off+sectorSize, len(b))])
			}
		}
	}
	is := p.sector(s)
	unique := list[:0]
	seen := map[string]bool{string(is): true}
	for _, b := range list {
		if !seen[string(b)] {
			seen[string(b)] = true
			unique = append(unique, b)
		}
	}
	return unique
}

// comesBefore reports whether a file is an earlier state of another: the same
// one, or an older manifest.
func comesBefore(name, of string) bool {
	a, isManifest := segment.ParseManifestName(name)
	b, both := segment.ParseManifestName(of)
	return name == of || isManifest && both && a < b
}

// TestDamageSwaps promises the same for two sectors that were exchanged. If one
// of them has the mark that proves the last writes, and the other those writes,
// nothing is left to tell that there were any.
func TestDamageSwaps(t *testing.T) {
	step := stride(t, 101)
	for kind, p := range victims(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			all := p.sectors(t)
			for i, a := range all {
				t.Run(a.String(), func(t *testing.T) {
					t.Parallel()
					for j, b := range all[i+1:] {
						if (i+j)%step != 0 || p.proves(a, b) || bytes.Equal(p.sector(a), p.sector(b)) {
							continue
						}
						other := p.withSector(a, p.sector(b)).withSector(b, p.sector(a))
						if _, err := other.judge(); err != nil {
							t.Fatalf("exchanged with %v: %v", b, err)
						}
					}
				})
			}
		})
	}
}

// proves reports whether one sector proves what lies in the other.
func (p *past) proves(a, b sectorAt) bool {
	return p.active != "" && a.name == p.active && b.name == p.active && int64(b.off) == p.proof
}
