package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// settings is a file with values of the flags of a command: a JSON object with
// their names, words joined by _ instead of -. What is said on the command line
// or in the environment counts more.
type settings struct {
	kong.Resolver
	file   string
	values map[string]any
}

// loadSettings implements [kong.ConfigurationLoader].
func loadSettings(r io.Reader) (kong.Resolver, error) {
	s := &settings{file: "settings"}
	if f, ok := r.(*os.File); ok {
		s.file = f.Name()
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &s.values); err != nil { // which allows nothing behind it
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	s.Resolver, err = kong.JSON(bytes.NewReader(text))
	return s, err
}

// Validate implements [kong.Resolver]. A name that no flag has may be one misspelt.
func (s *settings) Validate(app *kong.Application) error {
	known := make(map[string]bool)
	for _, command := range app.Leaves(false) {
		if command.Name == "serve" { // the only one with such a file
			for _, flag := range configurable(command) {
				known[settingName(flag)] = true
			}
		}
	}
	for name := range s.values {
		if !known[name] {
			return fmt.Errorf("%s: unknown setting %q", s.file, name)
		}
	}
	return nil
}

// Resolve implements [kong.Resolver].
func (s *settings) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return nil, nil
		}
	}
	return s.Resolver.Resolve(ctx, parent, flag)
}

// configurable are the flags of a command that a file may set.
func configurable(command *kong.Node) (flags []*kong.Flag) {
	for _, flag := range command.Flags {
		switch flag.Name {
		case "help", "config", "print-config":
		default:
			flags = append(flags, flag)
		}
	}
	return flags
}

func settingName(flag *kong.Flag) string { return strings.ReplaceAll(flag.Name, "-", "_") }

// printSettings prints what a file would have to say for a command to run as it
// would now. A flag with the tag secret is shown to be set, and not what it is.
func printSettings(w io.Writer, command *kong.Node) error {
	separator := "{\n  "
	for _, flag := range configurable(command) {
		if kind := flag.Target.Kind(); (kind == reflect.Pointer || kind == reflect.Slice) && flag.Target.IsNil() {
			continue // not set
		}
		value := flag.Target.Interface()
		if d, isDuration := value.(time.Duration); isDuration {
			value = d.String()
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%q: %s", separator, settingName(flag), text); err != nil {
			return err
		}
		separator = ",\n  "
	}
	_, err := fmt.Fprintln(w, "\n}")
	return err
}
