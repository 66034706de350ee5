package server

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// isOwnHost reports whether a request to a [Server] without tokens names this
// machine, or one of Options.Hosts, as its host. Any page in a browser can have its own name resolved to
// 127.0.0.1 and would then read the store as if it were a part of its site;
// the name is what gives it away. A request without one is not from a browser.
// Nor is one on a socket in the file system, or to a Handler, of which others
// decide who may ask it.
func (h *Handler) isOwnHost(r *http.Request) bool {
	return connOf(r) == nil || r.Host == "" || h.servesHost(r.Host)
}

// servesHost reports whether a Host is this machine or one of Options.Hosts.
func (h *Handler) servesHost(host string) bool {
	if loopbackHost(host) {
		return true
	}
	if len(h.hosts) == 0 {
		return false
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return h.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]
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

// misdirected is the answer to a request of which the host is not isOwnHost.
var misdirected = refusal{http.StatusMisdirectedRequest, "this server is for its own machine only: ask for localhost or 127.0.0.1, or have it serve your host (--allow-host)"}

// badHost is the answer to one whose Host is not a validHost.
var badHost = refusal{http.StatusBadRequest, "the host is not a name or an address"}

// validHost reports whether a Host has the form that RFC 9110, section 7.2, and
// RFC 3986 give it: a name or an address, and perhaps a port. It may be empty.
func validHost(host []byte) bool {
	name := host
	if i := bytes.LastIndexByte(host, ':'); i > bytes.LastIndexByte(host, ']') {
		name = host[:i]
		for _, c := range host[i+1:] {
			if c < '0' || c > '9' {
				return false
			}
		}
	}
	if len(name) == 0 || name[0] != '[' {
		return onlyOf(name, inName) && wellEscaped(name)
	}
	return len(name) > 2 && name[len(name)-1] == ']' && onlyOf(name[1:len(name)-1], inAddress)
}

// onlyOf reports whether a text has only bytes of a class.
func onlyOf(text []byte, bit byte) bool {
	for _, c := range text {
		if class[c]&bit == 0 {
			return false
		}
	}
	return true
}

// wellEscaped reports whether two hexadecimal digits follow each percent sign.
func wellEscaped(text []byte) bool {
	for i, c := range text {
		if c == '%' && (i+2 >= len(text) || class[text[i+1]]&class[text[i+2]]&hexDigit == 0) {
			return false
		}
	}
	return true
}
