package db

import (
	"errors"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/segment/vfs/simdisk"
)

// Health tells of a store that is closed, that takes no more writes, and that
// does not follow any more. It does not wait for a write, or a look for news.
// Method: a sync that fails, and the locks held as those under way hold them.
func TestHealth(t *testing.T) {
	disk := simdisk.New()
	db := open(t, "", &Options{FS: disk})
	mustPut(t, db, "k", "v")
	follower := open(t, "", &Options{FS: disk, ReadOnly: true})
	for _, s := range []*DB{db, follower} {
		if err := s.Health(); err != nil {
			t.Errorf("an open store: %v", err)
		}
	}

	disk.Fail(func(op, _ string, _ int) error {
		if op == simdisk.OpDatasync {
			return syscall.EIO
		}
		return nil
	})
	db.Put([]byte("k"), []byte("w"), nil)
	disk.Fail(nil)
	db.write.Lock()
	if err := db.Health(); !errors.Is(err, syscall.EIO) {
		t.Errorf("during a write after a failed one: %v", err)
	}
	db.write.Unlock()
	if err := db.Health(); !errors.Is(err, syscall.EIO) {
		t.Errorf("after a failed sync: %v", err)
	}
	db.write.Lock()
	if err := db.Health(); !errors.Is(err, syscall.EIO) {
		t.Errorf("during a write in vain: %v", err)
	}
	db.write.Unlock()
	mustGet(t, db, "k", "v")

	follower.follow.mu.Lock()
	if err := follower.Health(); err != nil {
		t.Errorf("a follower that looks for news: %v", err)
	}
	ended := errRewound
	follower.follow.ended.Store(&ended)
	if err := follower.Health(); err != errRewound {
		t.Errorf("a follower that is left behind: %v", err)
	}
	follower.follow.mu.Unlock()

	for _, s := range []*DB{db, follower} {
		s.Close()
		if err := s.Health(); err != ErrClosed {
			t.Errorf("a closed store: %v", err)
		}
	}
}
