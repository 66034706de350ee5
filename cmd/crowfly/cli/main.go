// Package cli is the command crowfly: its command line, a file for each command. It
// is a package of its own so that its tests are compiled without the profile that
// arranges the program, which takes half a minute.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/crowfly/crowfly/db"
)

// Exit codes.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitCondition   = 4
	exitInterrupted = 130
)

// commands is the command line. Each command has a file of its own.
type commands struct {
	Put        putCmd        `cmd:"" help:"Store files, or standard input under a key."`
	Get        getCmd        `cmd:"" help:"Print a value or write it to a file."`
	Head       headCmd       `cmd:"" help:"Print what is known about a value."`
	Cp         cpCmd         `cmd:"" help:"Copy values from one store to another."`
	Rm         rmCmd         `cmd:"" help:"Remove keys."`
	Ls         lsCmd         `cmd:"" help:"List keys in byte order."`
	Stat       statCmd       `cmd:"" help:"Describe a store, also a server's, or a value."`
	Import     importCmd     `cmd:"" help:"Store all regular files of a directory tree."`
	Export     exportCmd     `cmd:"" help:"Write all values into a directory tree."`
	Compact    compactCmd    `cmd:"" help:"Give back the space of what was overwritten or deleted, also of a server's store."`
	Verify     verifyCmd     `cmd:"" help:"Read all of a store and report damage."`
	Repair     repairCmd     `cmd:"" help:"Make a damaged store whole again, without what can't be read."`
	Serve      serveCmd      `cmd:"" help:"Serve a store over HTTP."`
	Completion completionCmd `cmd:"" help:"Print a script that makes a shell complete command lines."`
	Version    versionCmd    `cmd:"" help:"Print the version of crowfly."`

	VersionFlag kong.VersionFlag `name:"version" help:"Print the version of crowfly."`
}

// Main runs the command line of this process and returns its exit code.
func Main() int { return run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr) }

// run is Main without the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	e := &env{
		in:       stdin,
		out:      bufio.NewWriter(stdout),
		err:      stderr,
		terminal: isTerminal(stdout),
	}
	err := dispatch(args, e)
	if ferr := e.out.Flush(); err == nil {
		err = ferr
	}
	code := exitCode(err)
	switch code {
	case exitOK:
	case exitInterrupted:
		e.talk("crowfly: interrupted")
	default:
		e.talk("crowfly: %v", err)
		if _, damaged := errors.AsType[*db.CorruptError](err); damaged {
			e.talk("crowfly verify lists all damage. A directory that was copied while its store was open looks damaged too: copy a store with crowfly cp.")
		}
	}
	return code
}

// dispatch parses the command line and runs the command it asks for.
func dispatch(args []string, e *env) error {
	answered := false // by the parser itself: --help
	parser, err := kong.New(&commands{},
		kong.Name("crowfly"),
		kong.Description("An embedded zero-copy blob store and its HTTP server."),
		kong.Vars{"version": versionText(), "listen": defaultListen, "metrics": metricsAuto, "metrics_address": metricsAddress},
		kong.KindMapper(reflect.String, kong.MapperFunc(decodeRaw)),
		kong.Configuration(loadSettings),
		kong.Writers(e.out, e.err),
		kong.Exit(func(int) { answered = true }),
	)
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if answered {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	return command.Run(e)
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Error() string {
	return fmt.Sprintf("%v (see crowfly --help)", e.error)
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, db.ErrNotFound):
		return exitNotFound
	case errors.Is(err, db.ErrPrecondition):
		return exitCondition
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}
