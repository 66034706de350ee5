package server

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificateEvery is how often the files of a certificate are looked at, at
// most.
const certificateEvery = time.Second

// LoadTLS returns a configuration for [Options].TLS, with a certificate chain and
// its key from two files in PEM, which may be the same. When one of them has
// changed, which is looked at during handshakes, at most once a second, both are
// read again. If they do not fit together then the certificate stays the one it
// was, which the log is told once, and they are tried again a second later.
func LoadTLS(certFile, keyFile string, log *slog.Logger) (*tls.Config, error) {
	c := &certificate{files: [2]string{certFile, keyFile}, log: log}
	seen, err := c.look()
	if err == nil {
		err = c.load()
	}
	if err != nil {
		return nil, err
	}
	c.seen, c.looked = seen, time.Now()
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c.refresh(time.Now())
			return c.pair.Load(), nil
		},
	}, nil
}

// certificate is one that follows its files.
type certificate struct {
	files [2]string
	log   *slog.Logger
	pair  atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	looked  time.Time
	seen    [2]os.FileInfo  // when the pair was loaded
	refused *[2]os.FileInfo // when one was not, if ever
}

// refresh looks at the files if it is time to. A handshake that comes meanwhile
// goes on with the certificate there is.
func (c *certificate) refresh(now time.Time) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if now.Sub(c.looked) < certificateEvery {
		return
	}
	c.looked = now
	info, err := c.look()
	if err == nil && unchanged(info, c.seen) {
		return
	}
	if err == nil {
		err = c.load()
	}
	if err == nil {
		c.seen = info
		c.log.Info("certificate loaded", "file", c.files[0])
		return
	}
	if c.refused == nil || !unchanged(info, *c.refused) {
		c.log.Error("the certificate stays the one it was", "err", err)
	}
	c.refused = &info
}

// look returns what there is to see of the files from outside, as far as they
// are there.
func (c *certificate) look() (info [2]os.FileInfo, err error) {
	for i, name := range c.files {
		var ferr error
		if info[i], ferr = os.Stat(name); err == nil {
			err = ferr
		}
	}
	return info, err
}

func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.files[0], c.files[1])
	if err == nil {
		c.pair.Store(&pair)
	}
	return err
}

// unchanged reports whether both files are as they were. It is wrong only if one
// was written twice within what the file system takes for a moment.
func unchanged(a, b [2]os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && (!os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime())) {
			return false
		}
	}
	return true
}
