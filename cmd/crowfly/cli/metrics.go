package cli

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
func (c *serveCmd) listenMetrics() (net.Listener, error) {
	switch c.Metrics {
	case metricsOff, metricsSame:
		return nil, nil
	case metricsAuto:
		if l, err := server.ListenMetrics(metricsAddress); err == nil {
			return l, nil
		}
		return server.ListenMetrics("127.0.0.1:0")
	}
	return server.ListenMetrics(c.Metrics)
}

// whereMetrics tells a person, who is told where the values are as well.
func (c *serveCmd) whereMetrics(values string, metrics net.Listener) string {
	switch {
	case c.Metrics == metricsSame:
		return " (metrics on " + values + "/-/metrics)"
	case metrics != nil:
		return " (metrics on http://" + metrics.Addr().String() + "/-/metrics)"
	}
	return ""
}
