package main

import (
	"net"

	"github.com/crowfly/crowfly/server"
)

// What --metrics may be, beside an address.
const (
	metricsAuto = "auto" // metricsAddress or, where that is taken, any free port
	metricsSame = "same" // with the values
	metricsOff  = "off"

	metricsAddress = "127.0.0.1:9070"
)

// listenMetrics opens a listener for figures, or none. A second server on a
// machine must not fail for them.
func (c *serveCmd) listenMetrics(srv *server.Server) (net.Listener, error) {
	switch c.Metrics {
	case metricsOff, metricsSame:
		return nil, nil
	case metricsAuto:
		if l, err := srv.Listen(metricsAddress); err == nil {
			return l, nil
		}
		return srv.Listen("127.0.0.1:0")
	}
	return srv.Listen(c.Metrics)
}

// whereMetrics tells a person.
func (c *serveCmd) whereMetrics(listener, metrics net.Listener) string {
	if c.Metrics == metricsSame {
		metrics = listener
	}
	if metrics == nil {
		return ""
	}
	return " (metrics on http://" + metrics.Addr().String() + "/-/metrics)"
}
