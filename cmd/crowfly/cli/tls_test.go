package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writePair writes a certificate that signs itself, with its key.
func writePair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// A server with a certificate speaks HTTPS, and shows another one when the files
// are others. One that is no certificate does not count.
func TestServeTLS(t *testing.T) {
	needSignals(t)
	tmp := t.TempDir()
	cert, key := filepath.Join(tmp, "cert.pem"), filepath.Join(tmp, "key.pem")
	writePair(t, cert, key, 1)
	c, url, _ := serve(t, filepath.Join(tmp, "store"), "--tls-cert", cert, "--tls-key", key)
	if !strings.HasPrefix(url, "https://") {
		t.Fatalf("at %s", url)
	}
	shown := func() int64 {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get(url + "/key")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 404 {
			t.Errorf("GET: %s", resp.Status)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	until := func(serial int64) {
		for end := time.Now().Add(10 * time.Second); shown() != serial; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the certificate is not number %d", serial)
			}
		}
	}
	until(1)
	writePair(t, cert, key, 2)
	until(2)
	if err := os.WriteFile(cert, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		for line, err := "", error(nil); err == nil && !strings.Contains(line, "the certificate stays"); {
			line, err = c.err.ReadString('\n')
		}
	}()
	for waiting := true; waiting; until(2) { // until the server has looked
		select {
		case <-refused:
			waiting = false
		case <-time.After(100 * time.Millisecond):
		}
	}
	writePair(t, cert, key, 3)
	until(3)
	c.Process.Signal(syscall.SIGTERM)
	if code, talk := c.exit(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, talk)
	}
}
