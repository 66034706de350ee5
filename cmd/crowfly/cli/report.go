package cli

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/crowfly/crowfly/db"
)

// report tells what an import, an export or a copy does, while it does it:
// progress to a person who is watching, keys and JSON objects to programs, and
// a summary to both.
type report struct {
	env     *env
	noun    string // what is counted: file or value
	verbose bool   // print every key that is done
	json    bool

	start   time.Time
	bar     progress
	files   int
	bytes   int64
	partial int64 // of the value under way
	skipped int
	failed  []failure
}

// failure is a key that could not be stored or written.
type failure struct{ key, reason string }

func newReport(e *env, noun string, verbose, json bool) *report {
	return &report{
		env:     e,
		noun:    noun,
		verbose: verbose,
		json:    json,
		start:   time.Now(),
		bar:     progress{w: e.err, on: isTerminal(e.err) && !verbose},
	}
}

// jsonItem is what happened to one key.
type jsonItem struct {
	Event string `json:"event"` // stored, written, copied, skipped or failed
	jsonKey
	Size   *int64 `json:"size,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// jsonSummary is the last object of a report.
type jsonSummary struct {
	Event   string  `json:"event"` // summary
	Files   int     `json:"files"`
	Bytes   int64   `json:"bytes"`
	Skipped int     `json:"skipped"`
	Failed  int     `json:"failed"`
	Seconds float64 `json:"seconds"`
}

// passed counts bytes of a value that is under way.
func (r *report) passed(n int64) {
	r.partial += n
	r.bar.draw(r.rate)
}

// done counts a key that was dealt with: stored, written or copied, as event
// says.
func (r *report) done(event, key string, size int64) error {
	r.files++
	r.bytes += size
	r.partial = 0
	r.bar.draw(r.rate)
	switch {
	case !r.verbose:
		return nil
	case r.json:
		return r.env.json(jsonItem{Event: event, jsonKey: newJSONKey(key), Size: &size})
	}
	_, err := fmt.Fprintln(r.env.out, r.env.shown(key))
	return err
}

// skip names something that has no place on the other side.
func (r *report) skip(key, reason string) error {
	r.skipped++
	r.bar.clear()
	r.env.talk("skipped %q: %s", key, reason)
	if !r.json {
		return nil
	}
	return r.env.json(jsonItem{Event: "skipped", jsonKey: newJSONKey(key), Reason: reason})
}

// fail remembers a key that finish is going to list.
func (r *report) fail(key, reason string) {
	r.failed = append(r.failed, failure{key, reason})
	r.partial = 0
}

// finish lists the failures and prints the summary.
func (r *report) finish(verb string) error {
	r.bar.clear()
	r.partial = 0
	for _, f := range r.failed {
		r.env.talk("failed %q: %s", f.key, f.reason)
		if r.json {
			if err := r.env.json(jsonItem{Event: "failed", jsonKey: newJSONKey(f.key), Reason: f.reason}); err != nil {
				return err
			}
		}
	}
	r.env.talk("%s %s, %d skipped, %d failed", verb, r.rate(), r.skipped, len(r.failed))
	if !r.json {
		return nil
	}
	return r.env.json(jsonSummary{
		Event:   "summary",
		Files:   r.files,
		Bytes:   r.bytes,
		Skipped: r.skipped,
		Failed:  len(r.failed),
		Seconds: time.Since(r.start).Seconds(),
	})
}

// rate says how much is done and how fast.
func (r *report) rate() string {
	took := time.Since(r.start)
	bytes := r.bytes + r.partial
	return fmt.Sprintf("%s, %s in %v, %s/s",
		count(r.files, r.noun), formatBytes(bytes), took.Round(time.Millisecond), formatBytes(perSecond(bytes, took)))
}

// reason is an error about a key without the path in it, which would only
// repeat the key.
func reason(err error) string {
	var pathError *os.PathError
	var linkError *os.LinkError
	switch {
	case errors.Is(err, db.ErrSize):
		return "changed while it was read"
	case errors.As(err, &pathError):
		return pathError.Err.Error()
	case errors.As(err, &linkError):
		return linkError.Err.Error()
	}
	return err.Error()
}
