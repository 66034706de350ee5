package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// Help implements kong.HelpProvider.
func (versionCmd) Help() string {
	return `Examples:

  crowfly version`
}

// Run prints the version that the go command put into the program: a release,
// or the commit it was built from.
func (*versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.out, versionText())
	return err
}

func versionText() string {
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return fmt.Sprint("crowfly ", version, " ", runtime.Version(), " ", runtime.GOOS+"/"+runtime.GOARCH)
}
