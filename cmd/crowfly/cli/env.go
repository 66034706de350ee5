package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"
)

// env is what a command sees of the world: the three standard streams.
type env struct {
	in       io.Reader
	out      *bufio.Writer // data
	err      io.Writer     // talk
	terminal bool          // out is a terminal
}

// talk tells a person something.
func (e *env) talk(format string, args ...any) {
	fmt.Fprintf(e.err, format+"\n", args...)
}

// json prints v as one line of JSON.
func (e *env) json(v any) error {
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// shown is a key as it is printed on standard output: raw for programs, quoted
// on a terminal if it is not plain text.
func (e *env) shown(key string) string {
	if quoted := strconv.Quote(key); e.terminal && quoted != `"`+key+`"` {
		return quoted
	}
	return key
}

// row is a line of a table: what it is about, and what there is to say.
type row struct {
	name  string
	value any
}

func (e *env) table(rows []row) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(e.out, "%-14s%v\n", r.name, r.value); err != nil {
			return err
		}
	}
	return nil
}

// isTerminal reports whether somebody may be looking. The null device counts
// as one, which does no harm: nobody reads there what is written differently.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// jsonKey is a key in JSON, whose strings can't hold bytes that are not UTF-8.
type jsonKey struct {
	Key    string `json:"key,omitempty"`
	Base64 []byte `json:"key_base64,omitempty"`
}

func newJSONKey(key string) jsonKey {
	if !utf8.ValidString(key) {
		return jsonKey{Base64: []byte(key)}
	}
	return jsonKey{Key: key}
}

// count is a number of things in words: 1 file, 2 files.
func count[N int | int64 | uint64](n N, noun string) string {
	if n == 1 {
		return fmt.Sprint(n, " ", noun)
	}
	return fmt.Sprint(n, " ", noun, "s")
}

// formatTime prints a modification time, of which the zero one is unknown.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// formatBytes prints a size for people: 1.5 MiB.
func formatBytes(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/step, 0
	for size >= step {
		size /= step
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTPE"[unit])
}
