package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// Run prints the version that the go command put into the program: a release,
// or the commit it was built from.
func (*versionCmd) Run(e *env) error {
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	_, err := fmt.Fprintln(e.out, "crowfly", version, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	return err
}
