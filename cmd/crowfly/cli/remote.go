package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/crowfly/crowfly/server"
)

// isAddress reports whether an argument names a server instead of a directory.
func isAddress(arg string) bool {
	return strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://")
}

// client follows no redirects: to wherever they lead it would show the token too, if
// that has the same host but another port, or no encryption.
var client = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// ask sends a request to a server, with a token if the environment has one, and
// returns the answer if it is a good one.
func ask(ctx context.Context, method, address, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(address, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	if token := os.Getenv(tokenEnv); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	var problem struct {
		Detail string `json:"detail"`
	}
	_ = json.NewDecoder(resp.Body).Decode(&problem) // it need not be a crowfly server
	return nil, fmt.Errorf("%s: %s", address, cmp.Or(problem.Detail, resp.Status))
}

// askStats asks a server for the figures of its store.
func askStats(ctx context.Context, address string) (s server.StoreStats, err error) {
	resp, err := ask(ctx, http.MethodGet, address, "/-/stats")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w", address, err)
	}
	if s.Segments == nil {
		return s, fmt.Errorf("%s: that is no crowfly server", address)
	}
	return s, nil
}

// askCompact has a server compact its store, which ends with the context.
func askCompact(ctx context.Context, address string, progress func(server.CompactProgress)) (server.Compacted, error) {
	resp, err := ask(ctx, http.MethodPost, address, "/-/compact")
	if err != nil {
		return server.Compacted{}, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var line server.CompactLine
		err := lines.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return server.Compacted{}, fmt.Errorf("%s: %w", address, io.ErrUnexpectedEOF)
		case err != nil:
			return server.Compacted{}, fmt.Errorf("%s: %w", address, err)
		case line.Error != "":
			return server.Compacted{}, fmt.Errorf("%s: %s", address, line.Error)
		case line.Compacted != nil:
			return *line.Compacted, nil
		case line.CompactProgress != nil:
			progress(*line.CompactProgress)
		}
	}
}
