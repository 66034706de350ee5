package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/crowfly/crowfly/server"
)

const defaultListen = "127.0.0.1:7070"

type serveCmd struct {
	Dir       string        `arg:"" help:"Store directory, created if it does not exist."`
	Listen    string        `env:"CROWFLY_LISTEN" default:"${listen}" placeholder:"ADDR" help:"Address to listen on, by default ${default}. One that other machines can reach needs tokens. A socket that systemd passes on is used instead."`
	Tokens    *string       `name:"token-file" env:"CROWFLY_TOKEN_FILE" placeholder:"FILE" help:"File of the tokens that clients must show, one a line: ro TOKEN to read, rw TOKEN to read and write. Only its owner may have access to it. Without it CROWFLY_TOKENS may have the same, separated by commas."`
	Cert      *string       `name:"tls-cert" env:"CROWFLY_TLS_CERT" and:"tls" placeholder:"FILE" help:"Certificate chain in PEM. With it and its key the server speaks HTTPS only. A new one is taken soon after the files have changed."`
	Key       *string       `name:"tls-key" env:"CROWFLY_TLS_KEY" and:"tls" placeholder:"FILE" help:"Private key of the certificate, in PEM."`
	MaxConns  int           `env:"CROWFLY_MAX_CONNS" default:"10000" placeholder:"N" help:"How many connections may be open at once, by default ${default}, and never more than half of the file descriptors the process may have. More have to wait."`
	InFlight  int64         `name:"max-in-flight" env:"CROWFLY_MAX_IN_FLIGHT" default:"268435456" placeholder:"BYTES" help:"How much memory uploads and listings may take together, by default ${default}. Beyond it clients are asked to come again."`
	Metrics   string        `env:"CROWFLY_METRICS" default:"${metrics}" placeholder:"ADDR" help:"Where Prometheus finds figures, at /-/metrics, beside /-/healthz and /-/readyz: an address of this machine, 'same' for that of --listen, 'off', or by default 'auto': ${metrics_address} or, if that is taken, any free port."`
	AccessLog bool          `env:"CROWFLY_ACCESS_LOG" help:"Write a line about every request to standard error."`
	Grace     time.Duration `env:"CROWFLY_GRACE" default:"10s" help:"How long requests may go on after the first SIGINT or SIGTERM, by default ${default}. A second signal ends them at once."`

	Config      kong.ConfigFlag `env:"CROWFLY_CONFIG" placeholder:"FILE" help:"Take settings from this file, where neither the command line nor the environment has them: {\"listen\": \"127.0.0.1:7070\", \"access_log\": true}."`
	PrintConfig bool            `help:"Print the settings as such a file, and do nothing else."`
}

// Validate refuses limits that are none, and settings that are there and empty, as
// those made of a variable that is not set: the server would be open to more than was
// meant.
func (c *serveCmd) Validate() error {
	for name, value := range map[string]*string{"listen": &c.Listen, "token-file": c.Tokens, "tls-cert": c.Cert, "tls-key": c.Key} {
		if value != nil && *value == "" {
			return fmt.Errorf("--%s is empty", name)
		}
	}
	if c.MaxConns < 1 || c.InFlight < 1 {
		return errors.New("--max-conns and --max-in-flight must be above 0")
	}
	return nil
}

func (c *serveCmd) Run(e *env, parsed *kong.Context) (err error) {
	if c.PrintConfig {
		return printSettings(e.out, parsed.Selected())
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE) // whoever read standard error may be gone

	log := slog.New(slog.NewTextHandler(e.err, nil))
	tokens, err := serverTokens(c.Tokens)
	if err != nil {
		return err
	}
	encryption, err := c.encryption(log)
	if err != nil {
		return err
	}
	store, err := openWriter(c.Dir)
	if err != nil {
		return err
	}
	defer closeAfter(store, &err)

	srv := server.New(store, c.options(log, tokens, encryption))
	listener, err := c.listen(srv)
	if err != nil {
		return err
	}
	metrics, err := c.listenMetrics(srv)
	if err != nil {
		return errors.Join(fmt.Errorf("metrics: %w", err), listener.Close())
	}
	c.greet(e, listener, metrics, tokens != nil)

	served := make(chan error, 2)
	go func() { served <- srv.Serve(announce(e, listener)) }()
	if metrics != nil {
		go func() { served <- srv.ServeMetrics(metrics) }()
	}
	select {
	case err := <-served:
		return errors.Join(err, c.shutdown(srv, signals))
	case s := <-signals:
		e.talk("%v: stopping", s)
		notify(e, "STOPPING=1")
		return c.shutdown(srv, signals)
	}
}

// listen takes the listener of a service manager, or opens one.
func (c *serveCmd) listen(srv *server.Server) (net.Listener, error) {
	if l, err := inherited(); l != nil || err != nil {
		return l, err
	}
	return srv.Listen(c.Listen)
}

// options are those of the server.
func (c *serveCmd) options(log *slog.Logger, tokens *server.Tokens, encryption *tls.Config) *server.Options {
	o := &server.Options{
		Tokens:      tokens,
		TLS:         encryption,
		MaxConns:    c.MaxConns,
		MaxInFlight: c.InFlight,
		Metrics:     c.Metrics == metricsSame,
		Log:         log,
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
