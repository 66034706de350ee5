package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/server"
)

const defaultListen = "127.0.0.1:7070"

type serveCmd struct {
	Dir            string        `arg:"" help:"Store directory, created if it does not exist."`
	Listen         string        `env:"CROWFLY_LISTEN" default:"${listen}" placeholder:"ADDR" help:"Address to listen on, by default ${default}. One that other machines can reach needs tokens. A socket that systemd passes on is used instead."`
	Tokens         *string       `name:"token-file" env:"CROWFLY_TOKEN_FILE" placeholder:"FILE" help:"File of the tokens that clients must show, one a line: ro TOKEN to read, rw TOKEN to read and write. Only its owner may have access to it. Without it CROWFLY_TOKENS may have the same, separated by commas."`
	Cert           *string       `name:"tls-cert" env:"CROWFLY_TLS_CERT" and:"tls" placeholder:"FILE" help:"Certificate chain in PEM. With it and its key the server speaks HTTPS only. A new one is taken soon after the files have changed."`
	Key            *string       `name:"tls-key" env:"CROWFLY_TLS_KEY" and:"tls" placeholder:"FILE" help:"Private key of the certificate, in PEM."`
	ReadOnly       bool          `name:"read-only" env:"CROWFLY_READ_ONLY" help:"Serve a store that another process may have open for writing, or one on read-only media, and refuse writes. What the other writes is seen within a second."`
	MaxConns       int           `env:"CROWFLY_MAX_CONNS" default:"10000" placeholder:"N" help:"How many connections may be open at once, by default ${default}, and never more than half of the file descriptors the process may have. More have to wait."`
	InFlight       *int64        `name:"max-in-flight" env:"CROWFLY_MAX_IN_FLIGHT" placeholder:"BYTES" help:"How much memory uploads and listings may take together, by default a quarter of what this process may have, and 256 MiB at most. Beyond it clients are asked to come again."`
	MaxBody        *int64        `env:"CROWFLY_MAX_BODY" placeholder:"BYTES" help:"Largest value that a PUT may store, by default that of the store, 1 TiB."`
	MinRate        int64         `env:"CROWFLY_MIN_RATE" default:"4096" placeholder:"BYTES" help:"How many bytes a second a body must move, by default ${default}; 0 is no limit. When connections are scarce it is 65536 at least."`
	Hosts          []string      `name:"allow-host" env:"CROWFLY_ALLOW_HOST" placeholder:"NAME" help:"Host by which a server without tokens may be asked, beside those of this machine: the name of a site that a proxy on this machine passes on. May be given several times."`
	Origins        []string      `name:"cors-origin" env:"CROWFLY_CORS_ORIGIN" placeholder:"ORIGIN" help:"Site whose pages in a browser may ask this server, such as https://maps.example, or '*' for all. It needs tokens. May be given several times."`
	Sync           string        `env:"CROWFLY_SYNC" enum:"always,interval,never" default:"always" help:"When a write is acknowledged: always, when it is on disk; interval or never, when the kernel has it, and then it is synced ten times a second or when a segment is full. By default ${default}."`
	Verify         string        `env:"CROWFLY_VERIFY" enum:"first,always,never" default:"first" help:"When a value that is sent is checked against its checksum: on its first use after the start, always or never. By default ${default}."`
	SpaceTarget    float64       `env:"CROWFLY_SPACE_TARGET" default:"1.3" placeholder:"RATIO" help:"How many times the live bytes the files may take before compaction gives space back, by default ${default}, at least 1.05."`
	CompactionRate int64         `env:"CROWFLY_COMPACTION_RATE" default:"67108864" placeholder:"BYTES" help:"How many bytes a second compaction in the background may read, by default ${default}; 0 is no limit."`
	Metrics        string        `env:"CROWFLY_METRICS" default:"${metrics}" placeholder:"ADDR" help:"Where Prometheus finds figures, at /-/metrics, beside /-/healthz and /-/readyz: an address of this machine, 'same' for that of --listen, 'off', or by default 'auto': ${metrics_address} or, if that is taken, any free port."`
	AccessLog      bool          `env:"CROWFLY_ACCESS_LOG" help:"Write a line about every request to the log."`
	LogFile        *string       `env:"CROWFLY_LOG_FILE" placeholder:"FILE" help:"File to append the log to, by default standard error. It is opened anew at SIGHUP."`
	Grace          time.Duration `env:"CROWFLY_GRACE" default:"10s" help:"How long requests may go on after the first SIGINT or SIGTERM, by default ${default}. A second signal ends them at once."`

	Config      kong.ConfigFlag `env:"CROWFLY_CONFIG" placeholder:"FILE" help:"Take settings from this file, where neither the command line nor the environment has them: {\"listen\": \"127.0.0.1:7070\", \"access_log\": true}."`
	PrintConfig bool            `help:"Print the settings as such a file, and do nothing else."`
}

// Validate refuses limits that are none, and settings that are there and empty, as
// those made of a variable that is not set: the server would be open to more than was
// meant.
func (c *serveCmd) Validate() error {
	for name, value := range map[string]*string{"listen": &c.Listen, "token-file": c.Tokens, "tls-cert": c.Cert, "tls-key": c.Key, "log-file": c.LogFile} {
		if value != nil && *value == "" {
			return fmt.Errorf("--%s is empty", name)
		}
	}
	for _, host := range c.Hosts {
		if host == "" || strings.ContainsAny(host, "/: ") {
			return fmt.Errorf("--allow-host %q is not a name", host)
		}
	}
	switch {
	case c.MaxConns < 1 || c.InFlight != nil && *c.InFlight < 1 || c.MaxBody != nil && *c.MaxBody < 1:
		return errors.New("--max-conns, --max-in-flight and --max-body must be above 0")
	case c.MaxBody != nil && *c.MaxBody > db.MaxValue:
		return fmt.Errorf("--max-body must be %d at most", int64(db.MaxValue))
	case c.MinRate < 0 || c.CompactionRate < 0 || c.Grace < 0:
		return errors.New("--min-rate, --compaction-rate and --grace must not be negative")
	case !(c.SpaceTarget >= 1.05 && c.SpaceTarget <= math.MaxFloat64):
		return errors.New("--space-target must be 1.05 or more")
	}
	return nil
}

// Help implements kong.HelpProvider.
func (serveCmd) Help() string {
	return `Examples:

  crowfly serve data
  crowfly serve data --listen 0.0.0.0:7070 --token-file tokens --tls-cert cert.pem --tls-key key.pem
  crowfly serve data --read-only --listen 127.0.0.1:7071   beside the server that writes
  crowfly serve data --config crowfly.json

SIGHUP has the file of tokens read and the log file opened anew; a certificate is
read anew by itself. What can't be read stays as it was, and the log says why.
SIGINT and SIGTERM end the server: no new requests are taken, and those that have
begun have --grace. A second signal cuts them off.

The exit code is 0 after all requests came to their end, 1 if some were cut off or
the server could not start or go on, and 2 if a setting was wrong.`
}

func (c *serveCmd) Run(e *env, parsed *kong.Context) (err error) {
	if c.PrintConfig {
		return printSettings(e.out, parsed.Selected())
	}
	signals, hangUps := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	signal.Ignore(syscall.SIGPIPE) // whoever read standard error may be gone
	limitMemory()

	out, err := openLog(c.LogFile, e.err)
	if err != nil {
		return err
	}
	defer out.Close()
	log := slog.New(slog.NewTextHandler(out, nil))
	tokens, err := serverTokens(c.Tokens)
	if err != nil {
		return err
	}
	if err := c.checkOrigins(tokens); err != nil {
		return err
	}
	encryption, err := c.encryption(log)
	if err != nil {
		return err
	}
	listener, err := c.listen(tokens) // before a store is made for nothing
	if err != nil {
		return err
	}
	metrics, err := c.listenMetrics()
	if err != nil {
		return errors.Join(fmt.Errorf("metrics: %w", err), listener.Close())
	}
	store, err := c.open()
	if err != nil {
		err = errors.Join(err, listener.Close())
		if metrics != nil {
			err = errors.Join(err, metrics.Close())
		}
		return err
	}
	defer closeAfter(store, &err)

	srv := server.New(store, c.options(log, tokens, encryption))
	c.greet(e, listener, metrics, tokens != nil)

	served := make(chan error, 2)
	go func() { served <- srv.Serve(announce(e, listener)) }()
	if metrics != nil {
		go func() { served <- srv.ServeMetrics(metrics) }()
	}
	for {
		select {
		case err := <-served:
			return errors.Join(err, c.shutdown(srv, signals))
		case s := <-signals:
			e.talk("%v: stopping", s)
			notify(e, "STOPPING=1")
			return c.shutdown(srv, signals)
		case <-hangUps:
			c.reload(log, out, srv)
		}
	}
}

// reload is for SIGHUP.
func (c *serveCmd) reload(log *slog.Logger, out *logFile, srv *server.Server) {
	if err := out.reopen(); err != nil {
		log.Error("the log stays where it was", "err", err)
	}
	if c.Tokens == nil {
		log.Info("SIGHUP: there is no file of tokens to read")
		return
	}
	tokens, err := server.ReadTokens(*c.Tokens)
	if err == nil {
		err = srv.SetTokens(tokens)
	}
	if err != nil {
		log.Error("SIGHUP: the tokens stay what they were", "err", err)
		return
	}
	log.Info("SIGHUP: tokens read", "file", *c.Tokens)
}

// limitMemory has the collector keep below the limit of this process's control
// group, unless GOMEMLIMIT says something else. A part is left for the index, which
// the collector does not see.
func limitMemory() {
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set {
		if limit := server.MemoryLimit(); limit < math.MaxInt64 {
			debug.SetMemoryLimit(limit / 4 * 3)
		}
	}
}

// open opens the store.
func (c *serveCmd) open() (*db.DB, error) {
	verify := map[string]db.VerifyMode{"first": db.VerifyFirst, "always": db.VerifyAlways, "never": db.VerifyNever}[c.Verify]
	if c.ReadOnly {
		return openReaderWith(c.Dir, &db.Options{ReadOnly: true, Verify: verify})
	}
	o := &db.Options{
		Sync:        map[string]db.SyncMode{"always": db.SyncAlways, "interval": db.SyncInterval, "never": db.SyncNever}[c.Sync],
		Verify:      verify,
		SpaceTarget: c.SpaceTarget, CompactionRate: c.CompactionRate,
	}
	if c.CompactionRate == 0 {
		o.CompactionRate = -1
	}
	return openWriterWith(c.Dir, o)
}

// listen takes the listener of a service manager, or opens one.
func (c *serveCmd) listen(tokens *server.Tokens) (net.Listener, error) {
	if l, err := inherited(); l != nil || err != nil {
		return l, err
	}
	return server.Listen(c.Listen, tokens)
}

// checkOrigins refuses origins that are none, or that no token guards.
func (c *serveCmd) checkOrigins(tokens *server.Tokens) error {
	if tokens == nil && len(c.Origins) > 0 {
		return errors.New("--cors-origin needs --token-file: without tokens any page there could do everything")
	}
	if err := (&server.Options{AllowOrigins: c.Origins, Tokens: tokens}).Check(); err != nil {
		return fmt.Errorf("--cors-origin: %w", err)
	}
	return nil
}

// options are those of the server.
func (c *serveCmd) options(log *slog.Logger, tokens *server.Tokens, encryption *tls.Config) *server.Options {
	o := &server.Options{
		Tokens:   tokens,
		TLS:      encryption,
		MaxConns: c.MaxConns,
		Hosts:    c.Hosts,
		MinRate:  c.MinRate,
		Metrics:  c.Metrics == metricsSame,
		Log:      log,

		AllowOrigins: c.Origins,
	}
	if c.MinRate == 0 {
		o.MinRate = -1
	}
	if c.InFlight != nil {
		o.MaxInFlight = *c.InFlight
	}
	if c.MaxBody != nil {
		o.MaxBody = *c.MaxBody
	}
	if c.AccessLog {
		o.AccessLog = log
	}
	return o
}

// encryption is nil if there is to be none.
func (c *serveCmd) encryption(log *slog.Logger) (*tls.Config, error) {
	if c.Cert == nil {
		return nil, nil
	}
	return server.LoadTLS(*c.Cert, *c.Key, log)
}

// greet says where the server is, in commands to paste. If they need a token it
// is to be in the variable that crowfly itself takes it from.
func (c *serveCmd) greet(e *env, listener, metrics net.Listener, tokens bool) {
	addr, curl := listener.Addr(), "curl"
	if addr.Network() != "tcp" {
		e.talk("serving %s on %s%s", c.Dir, addr, c.whereMetrics(addr.String(), metrics))
		return
	}
	url := "http://" + here(addr)
	if c.Cert != nil {
		url = "https://" + here(addr)
	}
	if tokens {
		curl = `curl -H "Authorization: Bearer $` + tokenEnv + `"`
	}
	e.talk("serving %s on %s%s, try:", c.Dir, url, c.whereMetrics(url, metrics))
	for _, line := range []string{
		"echo hello | %s -T - '%s/hello.txt'",
		"%s '%s/hello.txt'",
		"%s -r 0-3 '%s/hello.txt'",
		"%s '%s/?prefix=hello'",
		"%s -X DELETE '%s/hello.txt'",
	} {
		e.talk("  "+line, curl, url)
	}
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && c.Cert == nil {
		e.talk("tokens and values are not encrypted on their way, see --tls-cert")
	}
}

// here is an address as this machine reaches it.
func here(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	return addr.String()
}

// shutdown lets requests come to their end, until the time is up or another
// signal comes.
func (c *serveCmd) shutdown(srv *server.Server, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Grace)
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("requests were cut off: %v", err)
	}
	return nil
}
