package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// fromThisMachine reports whether a request to a [Server] without tokens names
// this machine as its host. Any page in a browser can have its own name resolved to
// 127.0.0.1 and would then read the store as if it were a part of its site;
// the name is what gives it away. A request without one is not from a browser.
// Nor is one on a socket in the file system, or to a Handler, of which others
// decide who may ask it.
func fromThisMachine(r *http.Request) bool {
	return connOf(r) == nil || r.Host == "" || loopbackHost(r.Host)
}

// loopbackHost reports whether a Host, with or without a port, can only mean
// the machine of whoever asks: names below localhost are resolved to nothing
// else (RFC 6761).
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if strings.HasPrefix(host, "[") {
		host = strings.TrimSuffix(host[1:], "]")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// misdirected is the answer to a request that is not fromThisMachine.
var misdirected = refusal{http.StatusMisdirectedRequest, "this server is for its own machine only: ask for localhost or 127.0.0.1"}
