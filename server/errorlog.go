package server

import (
	"bytes"
	"io"
	"log"
	"log/slog"
)

// errorLog is for net/http, which tells much that is the fault of clients, and
// that anybody could fill a disk with. What is not known to be a fault of this
// side is not told.
func errorLog(h slog.Handler) *log.Logger {
	return log.New(ownErrors{slog.NewLogLogger(h, slog.LevelError).Writer()}, "", 0)
}

type ownErrors struct{ io.Writer }

// ownFaults are beginnings of lines about what this program has done wrong, or the
// system can't do.
var ownFaults = []string{
	"http: panic serving", "http2: panic serving", "http: Accept error",
	"http: superfluous response.WriteHeader", "http: response.Write", "http: WriteHeader called with",
	"http: invalid Content-Length", "ignoring invalid trailer", // of a response
}

func (w ownErrors) Write(line []byte) (int, error) {
	for _, beginning := range ownFaults {
		if bytes.HasPrefix(line, []byte(beginning)) {
			return w.Writer.Write(line)
		}
	}
	return len(line), nil
}
