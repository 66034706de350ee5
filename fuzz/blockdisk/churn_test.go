package blockdisk

import (
	"fmt"
	"math/rand/v2"

	"github.com/crowfly/crowfly/segment/vfs"
)

// churn does to files what a store may do, only with less care: little is
// synced, and seldom. No promise is made about them. They are there for a
// power cut to leave as much as possible that the simulated disk has to be
// able to leave, too.
type churn struct {
	fs        vfs.FS
	rng       *rand.Rand
	writeBack func(f vfs.File) // begins to write what is dirty, and promises nothing
	files     []*churned
	named     int // files and names so far
}

type churned struct {
	vfs.File
	name string
	end  int64
}

// step does one operation.
func (c *churn) step() error {
	const most = 6 // files
	if len(c.files) == 0 || len(c.files) < most && c.rng.IntN(8) == 0 {
		return c.create()
	}
	i := c.rng.IntN(len(c.files))
	f := c.files[i]
	switch c.rng.IntN(24) {
	case 0:
		return c.fs.SyncDir()
	case 1, 2:
		return f.Datasync()
	case 3:
		from := f.name
		f.name = c.newName()
		return c.fs.Rename(from, f.name)
	case 4:
		c.files = append(c.files[:i], c.files[i+1:]...)
		f.Close()
		return c.fs.Remove(f.name)
	case 5:
		return f.Trim()
	case 6, 7, 8:
		c.writeBack(f)
		return nil
	case 9:
		f.end += c.rng.Int64N(6 << 10) // a hole
	case 10, 11, 12:
		return c.write(f, 1+c.rng.IntN(20<<10))
	}
	return c.write(f, 64+c.rng.IntN(1500))
}

func (c *churn) newName() string {
	c.named++
	return fmt.Sprintf("file-%d", c.named)
}

func (c *churn) create() error {
	name := c.newName()
	f, err := c.fs.Create(name)
	if err != nil {
		return err
	}
	c.files = append(c.files, &churned{File: f, name: name})
	if c.rng.IntN(2) == 0 {
		return f.Reserve(0, segmentSize)
	}
	return nil
}

// write writes n bytes behind the end, in two buffers.
func (c *churn) write(f *churned, n int) error {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
	half := c.rng.IntN(n)
	for done := 0; done < n; {
		n, err := f.WriteVec([][]byte{b[done:max(done, half)], b[max(done, half):]}, f.end)
		if err != nil {
			return err
		}
		done += n
		f.end += int64(n)
	}
	return nil
}
