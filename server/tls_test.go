package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowfly/crowfly/db"
)

// pair is a certificate that signs itself, and its key.
type pair struct{ cert, key []byte }

func newPair(t *testing.T, name string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
}

// write makes the files of a pair. Each of them is another file than before.
func (p pair) write(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	replace(t, cert, p.cert)
	replace(t, key, p.key)
	return cert, key
}

func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// startTLS serves a store over TLS, and returns a configuration for clients too.
func startTLS(t *testing.T, store *db.DB, o Options, adjust ...func(*Server)) (s *Server, addr string, client *tls.Config) {
	t.Helper()
	o.TLS, client = tlsConfig(t)
	s, addr = start(t, store, &o, adjust...)
	return s, addr, client
}

// tlsConfig makes a certificate, and what servers and clients need of it.
func tlsConfig(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	p := newPair(t, "server")
	cert, key := p.write(t, t.TempDir())
	server, err := LoadTLS(cert, key, failOnError(t))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.cert)
	return server, &tls.Config{RootCAs: roots}
}

// dialTLS is dial with TLS. The wire is what is encrypted; what is beneath it is
// returned as well.
func dialTLS(t *testing.T, addr string, config *tls.Config) (*tls.Conn, *wire) {
	t.Helper()
	w := dial(t, addr)
	config = config.Clone()
	config.ServerName = "localhost"
	c := tls.Client(w.TCPConn, config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c, w
}

// TestTLS: values of all sizes go in and come back whole and in parts over
// HTTP/1.1 and HTTP/2. Every byte that leaves is counted as one that was copied,
// by the reason, and none of the requests is on the fast path.
func TestTLS(t *testing.T) {
	for proto, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(proto, func(t *testing.T) {
			store := openStore(t)
			values := putSizes(t, store)
			s, addr, config := startTLS(t, store, Options{Log: failOnError(t)})
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}}
			defer client.CloseIdleConnections()
			getAll(t, client, "https://"+addr, values)
			small, large := sums(values)
			want := Copied{TLS: small + large}
			if http2 {
				want = Copied{HTTP2: small + large}
			}
			checkBytes(t, s.Stats, 0, 0, want)

			for key, value := range values {
				r, err := http.NewRequest("PUT", "https://"+addr+"/new-"+key, bytes.NewReader(value))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != 201 || resp.Proto != proto {
					t.Errorf("%s: %s over %s", key, resp.Status, resp.Proto)
				}
				if got, err := store.Get(nil, []byte("new-"+key)); err != nil || !bytes.Equal(got, value) {
					t.Errorf("%s: %d bytes stored, %v", key, len(got), err)
				}
			}
			if st := s.Stats(); st.Fast != 0 || st.HandedOver != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestTLSAsksAsWell: for tokens, and without them for a Host of this machine.
func TestTLSAsksAsWell(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("v"), nil)
	for _, tokens := range []*Tokens{nil, exampleTokens(t)} {
		_, addr, config := startTLS(t, store, Options{Tokens: tokens, Log: failOnError(t)})
		for _, protos := range [][]string{{"http/1.1"}, {"h2", "http/1.1"}} {
			client := &http.Client{Transport: &http.Transport{
				TLSClientConfig: config.Clone(), ForceAttemptHTTP2: len(protos) == 2,
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, addr)
				},
			}}
			for host, want := range map[string]int{"localhost": 200, "example.com": 421} {
				client.Transport.(*http.Transport).TLSClientConfig.ServerName = "localhost"
				for _, token := range []string{"", tokenRO} {
					r, err := http.NewRequest("GET", "https://"+host+"/k", nil)
					if err != nil {
						t.Fatal(err)
					}
					if token != "" {
						r.Header.Set("Authorization", "Bearer "+token)
					}
					resp, err := client.Do(r)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					want := want
					if tokens != nil {
						want = map[string]int{"": 401, tokenRO: 200}[token]
					}
					if resp.StatusCode != want {
						t.Errorf("%s, tokens %v, token %q: %s, want %d", host, tokens != nil, token, resp.Status, want)
					}
				}
			}
			client.CloseIdleConnections()
		}
	}
}

// TestNoTLS: whoever does not encrypt gets nothing but an answer that says so,
// and with whatever clients do wrong in a handshake nobody can fill the log.
func TestNoTLS(t *testing.T) {
	store := openStore(t)
	put(t, store, "k", []byte("secret"), nil)
	_, addr, config := startTLS(t, store, Options{Log: failOnError(t)})
	c := dial(t, addr)
	c.send("GET /k HTTP/1.1\r\nHost: localhost\r\n\r\n")
	got := c.receive("GET")
	got.wantStatus(t, 400)
	if bytes.Contains(got.body, []byte("secret")) {
		t.Error("in clear text")
	}
	for _, text := range []string{"", "\x16\x03\x01\x00\x05hello", strings.Repeat("\x00", 1000), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		c := dial(t, addr)
		c.send(text)
		c.CloseWrite()
		io.Copy(io.Discard, c.in)
	}
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	config.ServerName = "localhost"
	if err := tls.Client(dial(t, addr), config).Handshake(); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	config.MaxVersion, config.NextProtos = 0, []string{"h2"}
	for _, text := range []string{"not HTTP/2 at all, but long enough for it", h2Preface + "\x00\x00\x01\x07\x00\x00\x00\x00\x00x"} {
		c, _ := dialTLS(t, addr, config)
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

// TestTLSShutdown: idle connections end, those before and in a handshake too, and
// a response under way is sent to its end.
func TestTLSShutdown(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	p := newPair(t, "server")
	cert, key := p.write(t, t.TempDir())
	tlsConfig, err := LoadTLS(cert, key, failOnError(t))
	if err != nil {
		t.Fatal(err)
	}
	s := New(store, &Options{TLS: tlsConfig})
	s.http.ReadHeaderTimeout = 500 * time.Millisecond // also for a handshake
	l, err := Listen("127.0.0.1:0", s.handler.tokens.Load())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	config := &tls.Config{InsecureSkipVerify: true}
	idle, _ := dialTLS(t, l.Addr().String(), config)
	io.WriteString(idle, "HEAD /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(idle), &http.Request{Method: "HEAD"}); err != nil {
		t.Fatal(err)
	}
	silent := dial(t, l.Addr().String())
	busy, _ := dialTLS(t, l.Addr().String(), config)
	io.WriteString(busy, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
	in := bufio.NewReader(busy)
	if _, err := in.Peek(1); err != nil { // it has begun
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		ended <- errors.Join(s.Shutdown(ctx), <-served)
	}()
	for name, c := range map[string]io.Reader{"idle": idle, "silent": silent} {
		if n, err := io.Copy(io.Discard, c); n != 0 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); n != 32<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCertificateFollowsItsFiles: a new pair is taken at the first handshake a
// second after the last look, and one that is no pair is not, whatever is wrong
// with it, until it is mended. Method: a handshake in memory, at a time of the
// test's own.
func TestCertificateFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	old, other, third := newPair(t, "old"), newPair(t, "other"), newPair(t, "third")
	var log logText
	cert, key := old.write(t, dir)
	c := &certificate{files: [2]string{cert, key}, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	c.seen, _ = c.look()
	now := time.Now()
	errs := 0
	want := func(after time.Duration, name string, logged int) {
		t.Helper()
		now = now.Add(after)
		c.refresh(now)
		if got := c.pair.Load().Leaf.Subject.CommonName; got != name {
			t.Fatalf("certificate %q, want %q", got, name)
		}
		errs += logged
		if n := strings.Count(log.String(), "level=ERROR"); n != errs {
			t.Fatalf("%d errors in the log, want %d: %s", n, errs, &log)
		}
	}
	want(time.Hour, "old", 0)
	other.write(t, dir)
	want(certificateEvery-1, "old", 0) // not looked at yet
	want(1, "other", 0)

	replace(t, cert, third.cert) // the key is still the other's
	want(certificateEvery, "other", 1)
	want(certificateEvery, "other", 0) // said once
	replace(t, key, third.key)
	want(certificateEvery, "third", 0)

	for _, text := range [][]byte{nil, []byte("rubbish"), old.cert[:100], old.key} {
		replace(t, cert, text)
		want(certificateEvery, "third", 1)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	want(certificateEvery, "third", 1)
	want(certificateEvery, "third", 0)
	old.write(t, dir)
	want(certificateEvery, "old", 0)

	info, err := os.Stat(key) // rewritten in place, as old as it was
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(key, append(old.key, '\n'), 0o600), os.Chtimes(key, time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
	before := c.pair.Load()
	want(certificateEvery, "old", 0)
	if c.pair.Load() == before {
		t.Error("a file of another length was not read")
	}
	before = c.pair.Load()
	want(time.Hour, "old", 0)
	if c.pair.Load() != before {
		t.Error("files that have not changed are read again")
	}
}

// TestLoadTLS: what is wrong with a pair is said at once, and the certificate of
// one that is right is shown.
func TestLoadTLS(t *testing.T) {
	dir := t.TempDir()
	p := newPair(t, "first")
	cert, key := p.write(t, dir)
	for _, files := range [][2]string{{cert, cert}, {key, key}, {key, cert}, {cert, filepath.Join(dir, "none")}, {"", ""}} {
		if _, err := LoadTLS(files[0], files[1], quiet()); err == nil {
			t.Errorf("%v: no error", files)
		}
	}
	config, err := LoadTLS(cert, key, quiet())
	if err != nil {
		t.Fatal(err)
	}
	_, addr := start(t, openStore(t), &Options{TLS: config})
	c, _ := dialTLS(t, addr, &tls.Config{InsecureSkipVerify: true})
	if name := c.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "first" {
		t.Errorf("certificate %q", name)
	}
	if len(config.NextProtos) > 0 {
		t.Errorf("the caller's configuration was changed: %v", config.NextProtos)
	}
}

// TestTLSIsSlowToo: the limits of time hold for connections that are encrypted.
// Method: a client sends a byte now and then of a handshake, a header or a body,
// and sees its end.
func TestTLSIsSlowToo(t *testing.T) {
	store := openStore(t)
	const limit = 400 * time.Millisecond
	s, addr, config := startTLS(t, store, Options{Log: failOnError(t)}, fastPace(limit), func(s *Server) {
		s.http.ReadHeaderTimeout = limit
	})
	request := "GET /large HTTP/1.1\r\nHost: localhost\r\n"
	put := "PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
	for name, begin := range map[string]func() io.ReadWriter{
		"handshake": func() io.ReadWriter { w := dial(t, addr); io.WriteString(w, "\x16\x03\x01\x01\x00"); return w },
		"header":    func() io.ReadWriter { c, _ := dialTLS(t, addr, config); io.WriteString(c, request); return c },
		"body":      func() io.ReadWriter { c, _ := dialTLS(t, addr, config); io.WriteString(c, put); return c },
	} {
		c := begin()
		began := time.Now()
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}()
		for done := false; !done && time.Since(began) < 15*time.Second; {
			select {
			case <-ended:
				done = true
			case <-time.After(limit / 10):
				io.WriteString(c, "\x01")
			}
		}
		if took := time.Since(began); took < limit/2 || took > 15*time.Second {
			t.Errorf("%s: ended after %v", name, took)
		}
	}
	wantAbsent(t, store, "k")
	if got := s.Stats().Put; got != (Requests{ClientError: 1}) {
		t.Errorf("%+v", got)
	}
}

// h2Preface is what a client begins HTTP/2 with.
const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// h2Frame is a frame of HTTP/2.
func h2Frame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags,
		byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}) + payload
}

// h2Get asks for a path: the header in the static table of HPACK, as far as it is
// there, and the rest spelt out.
func h2Get(stream uint32, path string) string {
	const endStream, endHeaders = 1, 4
	return h2Frame(1, endStream|endHeaders, stream, "\x82\x87"+"\x01\x09localhost"+"\x04"+string([]byte{byte(len(path))})+path)
}

// TestHTTP2WithoutWindow: a client that asks and takes nothing does not keep
// anything, whatever it asks for. Its window for what it would take is zero, and
// the server resets all streams.
func TestHTTP2WithoutWindow(t *testing.T) {
	store := openStore(t)
	putLarge(t, store)
	put(t, store, "small", []byte("v"), nil)
	_, addr, config := startTLS(t, store, Options{Log: failOnError(t)}, fastPace(300*time.Millisecond))
	config.NextProtos = []string{"h2"}
	c, _ := dialTLS(t, addr, config)
	const settings, initialWindow = 4, 4
	text := h2Preface + h2Frame(settings, 0, 0, string([]byte{0, initialWindow, 0, 0, 0, 0}))
	paths := []string{"/large", "/small", "/none", "/", "/-/stats"}
	for i, path := range paths {
		text += h2Get(uint32(2*i+1), path)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	for reset := 0; reset < len(paths); {
		const data, rstStream = 0, 3
		head := make([]byte, 9)
		_, err := io.ReadFull(c, head)
		n := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if err == nil {
			_, err = io.CopyN(io.Discard, c, n)
		}
		if err != nil {
			t.Fatalf("%d of %d streams are reset, then %v", reset, len(paths), err)
		}
		if head[3] == data && n > 0 {
			t.Error("data comes")
		}
		if head[3] == rstStream {
			reset++
		}
	}
	noHandles(t, store)
}

// TestTLSStuckReader: nor does one of HTTP/1.1 that reads nothing, or a little at
// a time, so that each record would be in time but the piece is not. It is cut
// off with what the kernel has not delivered.
func TestTLSStuckReader(t *testing.T) {
	const grace = 2 * time.Second // for 4 MiB, which take more than 3
	store := openStore(t)
	putLarge(t, store)
	s, addr, config := startTLS(t, store, Options{Log: failOnError(t)}, fastPace(grace))
	for i, drip := range []bool{false, true} {
		c, w := dialTLS(t, addr, config)
		w.SetReadBuffer(256 << 10)
		io.WriteString(c, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
		var err error
		for p := make([]byte, 64<<10); err == nil && s.Stats().Aborted == uint64(i); time.Sleep(50 * time.Millisecond) {
			if drip {
				_, err = io.ReadFull(w.TCPConn, p)
			}
		}
		eventually(t, "the transfer is aborted", func() bool { return s.Stats().Aborted == uint64(i+1) })
		noHandles(t, store)
		if err == nil {
			_, err = io.Copy(io.Discard, w.TCPConn)
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("drip %v: the client was not cut off: %v", drip, err)
		}
	}
}
